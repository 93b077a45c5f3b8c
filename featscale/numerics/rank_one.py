r"""Relaxation under a diagonal matrix fed back through a rank-one one, at any number of steps.

.. math:: c_i \leftarrow (1 - g_i)\, c_i + b_i \Big( F + \sum_l c_l \Big), \qquad b_i \ge 0

The sum of the c_i has one pole 1 − e_j for each root of Σ_i b_i/(g_i − e) = 1, one root below each g_i and above the one before, and with
f'_j = Σ_i b_i/(g_i − e_j)²

.. math:: \sum_i c_i(t) = \sum_j \frac{1}{f'_j} \Big[ (1 - e_j)^t \sum_i \frac{c_i(0)}{g_i - e_j} + F\, \frac{1 - (1 - e_j)^t}{e_j} \Big]

Roots are found as distances from the nearest g, so that differences keep all digits however weak the feedback is.
Derived; tests/numerics/test_rank_one.py compares with the recursion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Feedback weaker than this times the strongest is raised to it: it moves nothing, and keeps every root apart from its g.
WEAKEST = 1e-100
BISECTIONS, LOG_RANGE = 50, 600.0


@dataclass(frozen=True)
class Relaxation:
    """Poles and their weights, each of shape (n,): e, increasing, negative where the sum grows; start, the weights of c(0), and drive, those of F."""

    e: Array
    start: Array
    drive: Array

    def __call__(self, t: ArrayLike, F: float) -> Array:
        """Σ_i c_i after t steps, shape of t (n,); inf or NaN where the terms overflow."""
        t = np.asarray(t, np.float64)[:, None]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            power = t * np.log1p(-np.minimum(self.e, 1 - 1e-16))
            past = np.where(self.e == 0, t, -np.expm1(power) / self.e)
            return np.asarray(np.exp(power) @ self.start + F * (past @ self.drive))


def relaxation(g: Array, b: Array, c: Array) -> Relaxation:
    """Poles and weights for rates g, feedback b >= 0 and first values c, each of shape (n,), g in any order.

    Accuracy: 1e-14 relative in each weight of F, and in the sum of |c| for those of c(0). Cost: O(n²) for each of 50 bisections.
    """
    g, group = np.unique(g, return_inverse=True)
    b, c = (np.bincount(group.ravel(), values).astype(np.float64) for values in (b, c))
    if not b.any():
        return Relaxation(g, c, np.zeros_like(g))
    b = np.maximum(b, WEAKEST * b.max())
    pole, offset = _roots(g, b)
    gap = g[:, None] - g[pole] - offset
    slope = (b[:, None] / gap**2).sum(0)
    return Relaxation(g[pole] + offset, (c[:, None] / gap).sum(0) / slope, 1 / slope)


def _roots(g: Array, b: Array) -> tuple[NDArray[np.intp], Array]:
    """Each root as the index of its nearest g and the signed distance from it; g increasing, b > 0."""
    half = np.concatenate([[b.sum()], np.diff(g) / 2])
    # In a gap the sum runs from −∞ to ∞: its value in the middle tells the half that holds the root.
    above = np.ones(g.size, bool)
    above[1:] = (b[:, None] / (g[:, None] - g[1:] + half[1:])).sum(0) < 1
    pole = np.where(above, np.arange(g.size), np.arange(g.size) - 1)
    sign = np.where(above, -1.0, 1.0)
    distance = g[:, None] - g[pole]
    high = np.log(half)
    low = np.maximum(high - LOG_RANGE, -650.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        excess = sign * ((b[:, None] / (distance - sign * np.exp(middle))).sum(0) - 1) > 0
        low, high = np.where(excess, low, middle), np.where(excess, middle, high)
    offset = np.exp((low + high) / 2)
    for _ in range(3):
        gap = distance - sign * offset
        step = ((b[:, None] / gap).sum(0) - 1) / (b[:, None] / gap**2).sum(0) * sign
        offset = np.where(np.abs(step) < 1e-3 * offset, offset - step, offset)
    return pole, sign * offset
