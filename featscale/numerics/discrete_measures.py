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
    nodes, weights = gauss_pairs(x, mass, start)
    x, mass = np.concatenate([x[kept], nodes[many].ravel()]), np.concatenate([mass[kept], weights[many].ravel()])
    order = np.argsort(x, kind="stable")
    return x[order][mass[order] > 0], mass[order][mass[order] > 0]


def gauss_pairs(x: Array, mass: Array, start: NDArray[np.intp]) -> tuple[Array, Array]:
    """Two-point Gauss rules of consecutive groups of nodes, which begin at `start`: nodes and weights, each of shape (groups, 2).

    They keep the moments 0 to 3 of each group. Arguments: x > 0 and mass > 0, shape (n,).
    """
    size = np.diff(start, append=x.size)
    total = np.add.reduceat(mass, start)
    # Masses and positions relative to their group's, so that no product underflows.
    share, ratio = mass / np.repeat(total, size), x / np.repeat(x[start], size)
    mean = np.add.reduceat(share * ratio, start)
    offset = ratio / np.repeat(mean, size) - 1
    variance = np.add.reduceat(share * offset**2, start)
    skew = np.add.reduceat(share * offset**3, start)
    half = np.divide(skew, 2 * variance, out=np.zeros_like(skew), where=variance > 0)
    root = np.sqrt(half**2 + variance)
    upper, lower = half + root, half - root
    share_upper = np.divide(-lower, upper - lower, out=np.full_like(root, 0.5), where=root > 0)
    nodes = (x[start] * mean)[:, None] * np.stack([1 + lower, 1 + upper], axis=1)
    return nodes, np.stack([total * (1 - share_upper), total * share_upper], axis=1)
