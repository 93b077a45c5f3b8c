"""Discrete positive measures on x > 0 with fewer nodes and the same moments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require

Array = NDArray[np.float64]


def condense(x: Array, mass: Array, bins: int) -> tuple[Array, Array]:
    """At most `bins` nodes: each geometric cell of x that holds more than two nodes becomes its two-point Gauss rule.

    Keeps the moments ∫x^j, j = 0..3, of every cell. Derived; tests/numerics/test_discrete_measures.py checks the moments.
    Arguments: x > 0 and mass >= 0, shape (n,). bins >= 2.
    Returns: x increasing and mass > 0, shape (at most bins,).
    Accuracy: relative error of ∫g about (cell width in ln x)⁴/4320 g''''. Cost: O(n).
    """
    require(bins >= 2, "bins", bins, "an integer >= 2")
    order = np.argsort(x, kind="stable")
    x, mass = x[order], mass[order]
    x, mass = x[mass > 0], mass[mass > 0]
    if x.size <= bins:
        return x, mass
    edges = np.linspace(np.log(x[0]), np.log(x[-1]), bins // 2 + 1)
    cell = np.clip(np.searchsorted(edges, np.log(x), side="right"), 1, bins // 2)
    start = np.flatnonzero(np.diff(cell, prepend=0))
    size = np.diff(start, append=x.size)
    many = size > 2
    kept = ~np.repeat(many, size)
    nodes, weights = _gauss(x, mass, start, size)
    x = np.concatenate([x[kept], *(n[many] for n in nodes)])
    mass = np.concatenate([mass[kept], *(w[many] for w in weights)])
    order = np.argsort(x, kind="stable")
    return x[order][mass[order] > 0], mass[order][mass[order] > 0]


def _gauss(x: Array, mass: Array, start: NDArray[np.intp], size: NDArray[np.intp]) -> tuple[list[Array], list[Array]]:
    """Two-point Gauss rules of consecutive groups of nodes, from their centred moments."""
    total = np.add.reduceat(mass, start)
    mean = np.add.reduceat(mass * x, start) / total
    share, offset = mass / np.repeat(total, size), x / np.repeat(mean, size) - 1
    variance = np.add.reduceat(share * offset**2, start)
    skew = np.add.reduceat(share * offset**3, start)
    half = np.divide(skew, 2 * variance, out=np.zeros_like(skew), where=variance > 0)
    root = np.sqrt(half**2 + variance)
    upper, lower = half + root, half - root
    share_upper = np.divide(-lower, upper - lower, out=np.full_like(root, 0.5), where=root > 0)
    return [mean * (1 + lower), mean * (1 + upper)], [total * (1 - share_upper), total * share_upper]
