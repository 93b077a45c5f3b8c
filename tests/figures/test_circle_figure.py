"""The circle's table and figure from made-up runs: pairs of richness, common seeds, and what is left out."""

import functools
import json

import numpy as np
import polars as pl
import pytest

from featscale.cli.figure import show_circle
from featscale.errors import BadInput
from featscale.figures import circle
from featscale.figures.demo import Run
from featscale.theory.flow import gradient_flow
from featscale.theory.neural_tangent import circle_measure

t = np.concatenate([[0.0], np.geomspace(0.1, 100, 73)])


@functools.cache
def flow(q, gamma):
    return gradient_flow(circle_measure(q, 100, 3), gamma**2, t).loss


def made_up(gamma, q=1.0, N=64, seed=0, truth=None, scatter=0.01, **changes):
    """A run whose curve is the flow at richness `truth` (its own unless given), tilted a little by its seed."""
    science = {"data.q": q, "data.k_max": 100, "data.B": 64, "model.N": N, "optimizer.eta0": 0.1, "steps": 1000}
    science |= {"model.architecture.depth": 3, "model.architecture.relu_power": 1.0, "seed": seed}
    richness = gamma if truth is None else truth
    loss = flow(q, richness)
    tilt = np.maximum(t, 1) ** (scatter * np.random.default_rng(seed).standard_normal())
    curve = pl.DataFrame({"step": np.arange(t.size), "t": t, "seed": seed, "loss": loss * tilt})
    return Run(science | {"parameterization.gamma": gamma} | changes, curve)


def pair(q=1.0, seeds=(0, 1, 2), **kwargs):
    return [made_up(gamma, q, seed=seed, **kwargs) for gamma in (0.02, 1.0) for seed in seeds]


def test_curves_of_the_theory_have_its_exponents_and_common_seeds_cancel():
    (task,) = circle.data(pair(scatter=0.05))
    assert (task.beta, task.regime, task.seeds, task.N) == (0.5, "hard", 3, 64)
    assert task.window == pytest.approx((100 / circle.SPAN, 100), rel=0.1)
    for one in (task.lazy, task.rich):
        assert one.exponent == pytest.approx(one.theory, abs=0.1)
        assert one.error < 0.4
    assert task.difference == pytest.approx(task.rich.theory - task.lazy.theory, abs=1e-3)
    lo, hi = task.difference_interval
    assert 0 < lo <= task.difference <= hi
    assert hi - lo < 0.01 < task.lazy.interval[1] - task.lazy.interval[0]
    assert (task.lazy.limit, task.rich.limit) == (0.5, pytest.approx(2 / 3))


def test_a_network_that_stays_lazy_shows_no_gain():
    """The negative twin: runs called rich whose curves are lazy."""
    (task,) = circle.data(
        [made_up(0.02, seed=s) for s in range(3)] + [made_up(1.0, seed=s, truth=0.02) for s in range(3)]
    )
    assert abs(task.difference) < 1e-6
    assert task.rich.error > 0.3


def test_only_seeds_of_both_and_equal_settings_are_compared():
    runs = [*pair(seeds=(0, 1)), made_up(1.0, seed=7), made_up(1.0, seed=0, **{"optimizer.eta0": 0.2}), *pair(q=1.7)]
    tasks = circle.data(runs)
    assert [(task.q, task.seeds) for task in tasks] == [(1.0, 2), (1.7, 3)]
    assert tasks[1].regime == "easy"
    (single,) = circle.data(pair(seeds=(0,)))
    assert np.isnan(single.difference_interval).all()


def test_no_pair_is_refused():
    with pytest.raises(BadInput, match="^runs: no pair of finished runs: "):
        circle.data([made_up(1.0)])
    with pytest.raises(BadInput, match="^runs: "):
        circle.data([])


def test_the_table_and_the_figure_are_written(tmp_path, monkeypatch, capsys):
    runs = pair() + pair(N=128) + pair(q=1.7)
    monkeypatch.setattr(circle, "load", lambda folder: runs)
    show_circle("circle", tmp_path, tmp_path / "circle.png", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["tasks"]) == 3
    assert shown["tasks"][0]["rich"]["exponent"] > shown["tasks"][0]["lazy"]["exponent"]
    assert (tmp_path / "circle.png").stat().st_size > 10_000
    show_circle("circle", tmp_path, tmp_path / "circle.png", as_json=False)
    assert "rich − lazy" in capsys.readouterr().out
