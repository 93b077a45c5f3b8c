"""What is resampled: whole seeds, whole runs, or single runs of one row; never the points of one trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Kind = Literal["seed", "run", "row", "none"]

# Weights move this far from 1, and the variance is divided by its square.
FAY = 0.5


@dataclass(frozen=True)
class Clusters:
    """Independent units: code, shape (n,), of every row's cluster; stratum, shape (G,), within which clusters are exchanged; their kind."""

    code: Codes
    stratum: Codes
    kind: Kind

    @property
    def df(self) -> int:
        """Degrees of freedom: clusters less strata; 0 where nothing is replicated."""
        return 0 if self.kind == "none" else int(self.stratum.size - np.unique(self.stratum).size)

    def quantile(self, level: float) -> float:
        """Student's t for a two-sided interval; NaN without replicates."""
        return float(stdtrit(self.df, (1 + level) / 2)) if self.df > 0 else math.nan


@dataclass(frozen=True)
class Resamples:
    """weights, shape (K, G), of the clusters, and the probability, shape (K,), of each of the K resamples."""

    weights: Array
    probability: Array

    def variance(self, values: Array) -> Array:
        """Variance of an estimate from its values, shape (K, …), on the resamples: those whose values are all finite."""
        good = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        w = self.probability[good] / max(float(self.probability[good].sum()), 1e-300)
        off = values[good] - np.tensordot(w, values[good], axes=1)
        return np.asarray(np.tensordot(w, off**2, axes=1) / FAY**2, np.float64)


def crossed(config: Codes, seed: Codes | None, rows_are_runs: bool, by: str | None = None) -> Clusters:
    """Clusters of rows with a configuration and perhaps a seed.

    Seeds are the clusters where each was run in at least half of several configurations, for they may share data and initial weights across
    them; else the runs (configuration, seed), exchanged within their configuration. Without seeds every row is a run of its own if
    `rows_are_runs`; one trajectory a configuration has no replicate, hence no interval.
    Arguments: config, seed, shape (n,), codes from 0. by: "seed" or "run" to insist.
    """
    n = config.size
    if seed is None:
        if rows_are_runs:
            return Clusters(np.arange(n), np.zeros(n, np.int64), "row")
        return Clusters(config, config_codes(config), "none")
    pairs, run = np.unique(np.stack([config, seed]), axis=1, return_inverse=True)
    configs, seeds = np.unique(pairs[0]).size, np.unique(pairs[1]).size
    shared = configs > 1 and np.unique(pairs[1], return_counts=True)[1].min() >= configs / 2
    if by == "seed" or (by is None and (shared or configs == 1) and seeds > 1):
        return Clusters(np.unique(seed, return_inverse=True)[1], np.zeros(seeds, np.int64), "seed")
    kind: Kind = "run" if pairs.shape[1] > configs else "none"
    return Clusters(run.reshape(-1), pairs[0], kind)


def config_codes(code: Codes) -> Codes:
    """A stratum for each cluster: itself."""
    return np.arange(int(code.max()) + 1)


def rao_wu(clusters: Clusters, draws: int, seed: int = 0) -> Resamples:
    r"""The rescaling bootstrap: of the S clusters of a stratum, S − 1 are drawn with replacement, and weights go halfway there.

    .. math:: w_g = 1 + k\Bigl(\frac{S}{S-1} m_g - 1\Bigr), \qquad m \sim \mathrm{Multinomial}(S - 1; 1/S), \qquad k = \tfrac12

    The variance over resamples of a weighted mean, divided by k², is then s²/S without bias; drawing S of S gives (S − 1)/S of it, two thirds
    for three seeds. With k = 1 a resample of three seeds may be a single one, far outside the range where a law's fit is linear in its weights;
    k = ½ (Fay's method) keeps every seed in every resample. Where one stratum has at most `draws` different resamples, they are listed with their
    probabilities, and nothing is random.
    Source: Rao & Wu 1988, "Resampling inference with complex survey data"; Judkins 1990, "Fay's method for variance estimation";
    tests/fits/test_clusters.py.
    """
    strata = [np.flatnonzero(clusters.stratum == h) for h in np.unique(clusters.stratum)]
    G = clusters.stratum.size
    if len(strata) == 1 and 2 <= G and math.comb(2 * G - 2, G - 1) <= draws:
        return _halfway(_all(G))
    rng = np.random.default_rng(seed)
    weights = np.ones((draws, G))
    for inside in strata:
        S = inside.size
        if S > 1:
            weights[:, inside] = S / (S - 1) * rng.multinomial(S - 1, np.full(S, 1 / S), size=draws)
    return _halfway(Resamples(weights, np.full(draws, 1 / draws)))


def _halfway(resamples: Resamples) -> Resamples:
    return Resamples(1 + FAY * (resamples.weights - 1), resamples.probability)


def _all(G: int) -> Resamples:
    counts = np.array([np.bincount(c, minlength=G) for c in combinations_with_replacement(range(G), G - 1)])
    ways = np.array([math.factorial(G - 1) / math.prod(map(math.factorial, row)) for row in counts.tolist()])
    return Resamples(G / (G - 1) * counts, ways / ways.sum())
