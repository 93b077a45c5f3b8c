"""Loss curves of the simulated model over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.numerics.grids import log_steps
from featscale.simulate.collapsed import Collapsed
from featscale.simulate.naive import Naive
from featscale.simulate.problem import Problem

Array = NDArray[np.float64]
Method = Literal["naive", "collapsed"]


@dataclass(frozen=True)
class Curves:
    """Loss and kernel growth of S seeds at n logged steps.

    step, shape (n,), number of updates made. t = eta * step, flow time. loss, K, shape (n, S). seeds, shape (S,).
    """

    step: NDArray[np.int64]
    t: Array
    loss: Array
    K: Array
    seeds: tuple[int, ...]

    def mean_and_error(self) -> tuple[Array, Array]:
        """Mean loss over seeds and its standard error (NaN for one seed), each of shape (n,)."""
        S = len(self.seeds)
        error = self.loss.std(axis=1, ddof=1) / np.sqrt(S) if S > 1 else np.full(len(self.step), np.nan)
        return self.loss.mean(axis=1), error


def simulate(
    problem: Problem,
    T: int,
    seeds: Sequence[int],
    method: Method = "collapsed",
    per_decade: int = 24,
    progress: Callable[[int], None] = lambda step: None,
) -> Curves:
    """Run `T` steps of every seed from w = 0 and log on a log grid of steps.

    Arguments: T >= 1. seeds, non-negative integers. method, "collapsed" (fast) or "naive" (the definition). progress, called with each
    logged step.
    Returns: :class:`Curves`; a diverged seed has inf or NaN from where it left.
    Cost: collapsed O(S N²) a step after a set-up of 2 N² M a seed; naive O(S (N + B) M) a step.
    """
    require(method in ("naive", "collapsed"), "method", method, "naive or collapsed")
    require(len(seeds) >= 1 and all(seed >= 0 for seed in seeds), "seeds", list(seeds), "at least one integer >= 0")
    steps = log_steps(T, per_decade)
    runs: list[Naive] | list[Collapsed]
    runs = [Naive(problem, seed) for seed in seeds] if method == "naive" else [Collapsed([problem] * len(seeds), seeds)]
    loss, K = np.empty((2, steps.size, len(seeds)))
    with np.errstate(all="ignore"):
        for i, step in enumerate(steps):
            for run in runs:
                run.advance(int(steps[i - 1]) if i else 0, int(step))
            loss[i] = np.concatenate([np.atleast_1d(run.loss()) for run in runs])
            K[i] = np.concatenate([np.atleast_1d(run.K()) for run in runs])
            progress(int(step))
    return Curves(steps, np.asarray(problem.eta * steps, np.float64), loss, K, tuple(seeds))
