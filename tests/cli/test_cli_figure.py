"""`featscale figure` of image runs and of the circle's modes, from made-up runs."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from featscale.cli.figure import figure
from featscale.errors import BadInput
from featscale.figures import demo
from featscale.figures.demo import Run


@pytest.fixture
def command(monkeypatch, tmp_path):
    """A function that runs `featscale figure NAME --json` on made-up runs; returns its object."""
    import typer

    def call(name, runs):
        monkeypatch.setattr(demo, "load", lambda folder, only=None: runs if folder.name == name else [])
        app = typer.Typer()
        app.command()(figure)
        done = CliRunner().invoke(app, [name, "--runs", str(tmp_path), "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    return call


def made_up(gamma, seed, chi, **columns):
    t = np.concatenate([[0.0], np.geomspace(1, 100, 40)])
    loss = 0.1 * np.maximum(t, 1) ** -chi
    curve = pl.DataFrame({"t": t, "seed": seed, "loss": loss} | {name: make(t) for name, make in columns.items()})
    return Run({"parameterization.gamma": gamma, "seed": seed}, curve)


def test_image_runs(command, tmp_path):
    runs = [
        made_up(g, s, chi + 0.01 * s, accuracy=lambda t: t / 100)
        for g, chi in ((0.1, 0.3), (1.0, 0.5))
        for s in range(3)
    ]
    found = command("mnist_cnn", runs)
    assert [line["exponent"] for line in found["exponents"]] == pytest.approx([0.31, 0.51], abs=0.005)
    assert found["gain"]["difference"] == pytest.approx(0.2, abs=1e-6)
    assert (tmp_path / "mnist_cnn.png").is_file()


def test_modes_of_the_circle(command, tmp_path):
    bands = {f"band_{b}": (lambda t, b=b: b**-1.0 * np.exp(-t / b**2)) for b in (1, 2, 4, 8)} | {
        "band_0": lambda t: 0 * t
    }
    found = command("circle_modes", [made_up(1.0, seed, 0.3, **bands) for seed in (0, 1)])
    (one,) = found["k_star"]
    k = np.array([np.nan if value is None else value for value in one["k_star"]])
    finite = k[np.isfinite(k)]
    assert len(finite) > 10
    assert (np.diff(finite) > 0).all()
    assert (tmp_path / "circle_modes_gamma1.png").is_file()


def test_all_leaves_out_what_has_no_runs(monkeypatch, tmp_path, capsys):
    runs = [made_up(1.0, seed, 0.3) for seed in range(2)]
    monkeypatch.setattr(demo, "load", lambda folder, only=None: runs if folder.name == "mnist_cnn" else [])
    figure("all", runs=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist_cnn.png"]
    left_out = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert left_out == ["demo", "circle", "cifar5m_cnn", "circle_modes"]
    monkeypatch.setattr(demo, "load", lambda folder, only=None: [])
    with pytest.raises(BadInput, match=r"^runs: .*: a folder with the finished runs of a figure"):
        figure("all", runs=tmp_path)
    with pytest.raises(BadInput, match=r"^NAME: all: one figure with --json"):
        figure("all", runs=tmp_path, as_json=True)
