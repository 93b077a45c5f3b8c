"""Image curves from made-up runs: exponents, the paired gain and its negative twin, and what is refused."""

import numpy as np
import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.figures import images
from featscale.figures.demo import Run


def runs(chi_lazy=0.3, chi_rich=0.5, seeds=(0, 1, 2), scatter=0.01):
    """One run a seed and richness; a seed moves both of its exponents together."""
    rng = np.random.default_rng(0)
    common = {seed: 0.15 * (seed - 1) for seed in seeds}
    made = []
    for gamma, chi in ((0.05, chi_lazy), (1.0, chi_rich)):
        for seed in seeds:
            t = np.concatenate([[0.0], np.geomspace(1, 600, 60)])
            exponent = chi + common[seed] + scatter * rng.standard_normal()
            loss = np.where(t > 0, 0.1 * np.maximum(t, 1) ** -exponent, 0.1)
            curve = pl.DataFrame({"t": t, "seed": seed, "loss": loss, "accuracy": 1 - loss})
            row = {
                "parameterization.gamma": gamma,
                "seed": seed,
                "model.N": 16,
                "hash": f"{gamma}{seed}",
                "loss": loss[-1],
            }
            made.append(Run(row, curve))
    return made


def test_exponents_and_their_paired_difference():
    found = images.data(runs())
    assert [curve.gamma for curve in found.curves] == [0.05, 1.0]
    assert [curve.fit.seeds for curve in found.curves] == [(0, 1, 2)] * 2
    assert found.curves[0].fit.window == pytest.approx((60, 600))
    low, high = found.gain.interval
    assert low < 0.2 < high
    assert low > 0
    # Seeds differ by ten times as much as pairs do: only the paired interval tells lazy from rich.
    assert found.curves[0].fit.interval[1] > found.curves[1].fit.interval[0]
    assert found.curves[1].accuracy == pytest.approx(1 - found.curves[1].loss[-1], rel=1e-6)


def test_no_gain_is_not_seen_as_one():
    low, high = images.data(runs(chi_rich=0.3)).gain.interval
    assert low < 0 < high


def test_one_seed_has_no_interval_and_one_richness_no_gain():
    assert np.isnan(images.data(runs(seeds=(0,))).gain.interval).all()
    assert images.data(runs()[:3]).gain is None


def test_what_is_refused():
    with pytest.raises(BadInput, match=r"^runs: none finished"):
        images.data([])
    other = Run(runs()[0].science | {"model.N": 32}, runs()[0].curve)
    with pytest.raises(BadInput, match=r"^runs: gamma = 0.05: runs that differ in gamma and seed only"):
        images.data([*runs(), other])
    with pytest.raises(BadInput, match=r"^seed: none in common"):
        images.data([run for run in runs() if (run.gamma > 0.5) == (run.science["seed"] == 0)])


def test_the_figure_is_written(tmp_path):
    images.save(images.data(runs()), tmp_path / "mnist_cnn.png", "MNIST")
    assert (tmp_path / "mnist_cnn.png").stat().st_size > 10_000
