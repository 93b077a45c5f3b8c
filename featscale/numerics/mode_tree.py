"""Population modes, and their summary around a stretch of the spectrum: near ones one by one, far ones in clusters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featscale.numerics.discrete_measures import gauss_pairs

Array = NDArray[np.float64]

LEAF = 8
# A cluster whose width is at most this share of its distance is seen as two nodes; the error of 1/(λ − p) is below OPENING⁴/180.
OPENING = 0.1


@dataclass(frozen=True)
class Modes:
    """Population modes: lam, distinct eigenvalues > 0, largest first; count, how many modes share each; rho, their power. All of shape (n,)."""

    lam: Array
    count: Array
    rho: Array

    @property
    def weight(self) -> Array:
        """count λ², shape (n,)."""
        return self.count * self.lam**2


class _Level(NamedTuple):
    """Clusters of equally many neighbouring modes: their ends, shape (groups,), and nodes of each, shape (groups, 4)."""

    high: Array
    low: Array
    lam: Array
    number: Array
    rho: Array


@dataclass(frozen=True)
class ModeTree:
    """Clusters of 8, 16, 32, … neighbouring modes, each with the Gauss pairs of its weights count λ and rho.

    Cost: O(n) to build; a view holds O(log n) clusters and the modes of its stretch.
    """

    modes: Modes

    @cached_property
    def _levels(self) -> list[_Level]:
        """Smallest clusters first."""
        lam, n = self.modes.lam, self.modes.lam.size
        sizes = LEAF * 2 ** np.arange(max(1, int(np.ceil(np.log2(n / LEAF))) + 1))
        return [
            self._cluster(np.arange(0, n, size), np.minimum(np.arange(0, n, size) + size, n), lam) for size in sizes
        ]

    def _cluster(self, start: NDArray[np.intp], stop: NDArray[np.intp], lam: Array) -> _Level:
        trace, rho = self.modes.count * lam, self.modes.rho
        first, trace_pair = gauss_pairs(lam, trace, start)
        # A cluster without power has its nodes anywhere.
        second, rho_pair = gauss_pairs(lam, np.maximum(rho, 1e-300), start)
        none = np.zeros_like(rho_pair)
        nodes = np.concatenate([first, second], axis=1)
        count, power = np.concatenate([trace_pair / first, none], axis=1), np.concatenate([none, rho_pair], axis=1)
        return _Level(lam[start], lam[stop - 1], nodes, count, power)

    def around(self, low: float, high: float) -> Modes:
        """Modes as any u in [low, high] sees them: sums of count λ^j f(λ), j >= 1, and of rho f(λ) for f smooth but for a pole near u."""
        found: list[tuple[Array, Array, Array]] = []
        index = np.arange(self._levels[-1].high.size)
        for level in reversed(self._levels):
            index = index[index < level.high.size]
            distance = np.maximum(level.low[index] - high, low - level.high[index])
            width = level.high[index] - level.low[index]
            # One mode alone is no cluster.
            far = (width > 0) & (width <= OPENING * distance)
            seen = index[far]
            found.append((level.lam[seen].ravel(), level.number[seen].ravel(), level.rho[seen].ravel()))
            split = index[~far]
            index = np.concatenate([2 * split, 2 * split + 1])
        single = (split[:, None] * LEAF + np.arange(LEAF)).ravel()
        single = single[single < self.modes.lam.size]
        found.append((self.modes.lam[single], self.modes.count[single], self.modes.rho[single]))
        lam, count, rho = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(-lam, kind="stable")
        return Modes(lam[order], count[order], rho[order])
