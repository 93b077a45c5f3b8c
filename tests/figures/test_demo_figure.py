"""The demo's table and figure from made-up runs: measured beside theory, agreement and its negative twin."""

import numpy as np
import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.figures import demo
from featscale.figures.demo import Run
from featscale.theory.finite_width import finite_width_measure
from featscale.theory.flow import gradient_flow


def made_up(gamma, beta=0.5, N=64, truth=None, scatter=0.002):
    """A run whose curve is the flow at richness `truth` (its own unless given), with a little scatter between seeds."""
    science = {"data.alpha": 1.5, "data.beta": beta, "data.M": 2000, "model.N": N, "parameterization.gamma": gamma}
    run = Run(science, pl.DataFrame())
    t = np.geomspace(0.05, 60, 75)
    loss = gradient_flow(finite_width_measure(run.task, N), gamma if truth is None else truth, t).loss
    rng = np.random.default_rng(0)
    rows = [
        pl.DataFrame(
            {
                "step": (t / 0.05).astype(int),
                "t": t,
                "seed": seed,
                "loss": loss * t ** (scatter * rng.standard_normal()),
            }
        )
        for seed in range(4)
    ]
    return Run(science, pl.concat(rows))


def test_a_curve_of_the_theory_agrees_with_it():
    line = demo.time_exponent(made_up(gamma=1.0))
    assert line.verdict == "agrees"
    assert line.measured == pytest.approx(line.theory, abs=0.01)
    assert line.limit == pytest.approx(2 / 3)


def test_a_lazy_curve_does_not_agree_with_the_rich_theory():
    line = demo.time_exponent(made_up(gamma=3.0, truth=0.0, N=512))
    assert line.verdict == "differs"


def test_the_figure_has_every_panel_and_is_written(tmp_path):
    runs = [made_up(gamma) for gamma in (0.0, 1.0)] + [made_up(1.0, N=N) for N in (8, 16, 32)]
    images = pl.DataFrame(
        {"step": [0, 1, 10, 100], "t": [0.0, 1.0, 10.0, 100.0], "seed": 0, "loss": [1.0, 0.9, 0.5, 0.2]}
    )
    runs.append(Run({"parameterization.gamma": 1.0}, images))
    result = demo.data(runs)
    assert [line.law for line in result.lines] == ["t^-χ", "t^-χ", "N^-r", "t^-χ"]
    assert result.lines[2].limit == pytest.approx(0.75)
    assert len(result.gammas) == 2
    assert len(result.bottleneck) == 3
    demo.save(result, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_no_runs_is_one_line():
    with pytest.raises(BadInput, match="runs"):
        demo.data([])
