"""What is resampled, and that the resampled variance of a mean is s²/S."""

import numpy as np
import pytest
from tolerances import IDENTITY, SIGMAS

from featscale.fits.clusters import Clusters, crossed, rao_wu


def seeds(S):
    return Clusters(np.arange(S), np.zeros(S, np.int64), "seed")


@pytest.mark.parametrize("S", [2, 3, 5])
def test_the_listed_resamples_have_the_variance_of_the_mean(S):
    y = np.random.default_rng(S).normal(size=S)
    resamples = rao_wu(seeds(S), 400)
    np.testing.assert_allclose(resamples.probability.sum(), 1, rtol=IDENTITY)
    np.testing.assert_allclose(resamples.probability @ resamples.weights, 1, rtol=IDENTITY)
    means = resamples.weights @ y / S
    np.testing.assert_allclose(resamples.variance(means), y.var(ddof=1) / S, rtol=1e-10)


def test_drawing_as_many_as_there_are_would_be_a_third_short_for_three_seeds():
    y, rng = np.array([0.0, 1.0, 5.0]), np.random.default_rng(0)
    means = rng.choice(y, size=(40_000, 3)).mean(axis=1)
    assert means.var() / (y.var(ddof=1) / 3) == pytest.approx(2 / 3, abs=0.02)


def test_many_clusters_are_drawn_at_random_and_repeatably():
    y = np.random.default_rng(0).normal(size=40)
    resamples = rao_wu(seeds(40), 4000)
    variance = resamples.variance(resamples.weights @ y / 40)
    assert abs(variance / (y.var(ddof=1) / 40) - 1) < SIGMAS * np.sqrt(2 / 4000)
    np.testing.assert_array_equal(rao_wu(seeds(40), 4000).weights, resamples.weights)


def test_strata_keep_their_size():
    clusters = Clusters(np.arange(7), np.array([0, 0, 0, 1, 1, 1, 2]), "run")
    weights = rao_wu(clusters, 50).weights
    np.testing.assert_allclose(weights[:, :3].sum(axis=1), 3)
    np.testing.assert_allclose(weights[:, 3:6].sum(axis=1), 3)
    np.testing.assert_array_equal(weights[:, 6], 1)
    assert clusters.df == 4


def grid(configs, S, nested=False):
    config = np.repeat(np.arange(configs), 4 * S)
    seed = np.tile(np.repeat(np.arange(S), 4), configs)
    return config, seed + 100 * config if nested else seed


def test_seeds_shared_by_widths_are_the_clusters():
    config, seed = grid(3, 5)
    clusters = crossed(config, seed, rows_are_runs=False)
    assert (clusters.kind, clusters.df) == ("seed", 4)
    assert crossed(config, seed, False, "run").df == 12


def test_seeds_of_one_width_each_are_runs_within_it():
    clusters = crossed(*grid(3, 5, nested=True), rows_are_runs=False)
    assert (clusters.kind, clusters.df, clusters.stratum.size) == ("run", 12, 15)


def test_points_of_one_trajectory_are_never_clusters():
    config, seed = grid(3, 1)
    assert crossed(config, None, rows_are_runs=False).df == 0
    assert crossed(config, seed, rows_are_runs=False).df == 0
    assert np.isnan(crossed(config, None, rows_are_runs=False).quantile(0.95))


def test_rows_that_are_runs_are_clusters():
    clusters = crossed(np.zeros(10, np.int64), None, rows_are_runs=True)
    assert (clusters.kind, clusters.df) == ("row", 9)
