"""`featscale fit curve`: its JSON, its text, its picture and its one-line errors."""

import json

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from featscale.cli.fit import app
from featscale.cli.fit_plot import draw
from featscale.cli.output import run
from featscale.fits import fit_curve
from featscale.fits.resample import clean

T = np.concatenate([[0.0], np.logspace(0, 4, 97)])


def table(S=3, E=0.0):
    """Curves with exponents 0.5, 0.51, 0.49, … above E."""
    chi = 0.5 + 0.01 * ((np.arange(S) + 1) // 2) * (-1.0) ** np.arange(S)
    loss = E + np.maximum(T, 0.1) ** -chi[:, None]
    return pl.DataFrame({"t": np.tile(T, S), "loss": loss.ravel(), "seed": np.repeat(np.arange(S), T.size)})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "curves.csv"
    table().write_csv(path)
    return path


def result(capsys, *arguments):
    assert run(app, ["curve", *map(str, arguments), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_json_holds_the_contract_and_agrees_with_the_function(capsys, file):
    found = result(capsys, file, "--window", "10,1000")
    assert {"exponent", "interval", "window", "floor", "flags"} <= set(found)
    columns = table()
    fit = fit_curve(columns["t"], columns["loss"], columns["seed"], window=(10, 1000))
    assert found["exponent"] == fit.exponent
    assert found["interval"] == list(fit.interval)
    assert (found["window"], found["floor"], found["floor_kind"]) == ([10.0, 1000.0], 0.0, "zero")
    assert found["flags"] == []
    assert found["seeds"] == [0, 1, 2]
    assert len(found["t_local"]) == len(found["chi_local"]) > 10
    assert "verdict" not in found


def test_parquet_and_run_directory(capsys, file, tmp_path):
    table().write_parquet(tmp_path / "curve.parquet")
    assert result(capsys, tmp_path) == result(capsys, tmp_path / "curve.parquet") == result(capsys, file)


def test_one_seed_has_null_bounds(capsys, tmp_path):
    table(1).drop("seed").write_csv(tmp_path / "one.csv")
    found = result(capsys, tmp_path / "one.csv", "--predicted", 0.5, "--margin", 0.1)
    assert found["interval"] == [None, None]
    assert found["flags"] == ["one seed: no interval"]
    assert found["verdict"] == "undecided"


def test_floors(capsys, tmp_path):
    table(1, E=0.25).write_csv(tmp_path / "floor.csv")
    free = result(capsys, tmp_path / "floor.csv", "--floor", "free")
    known = result(capsys, tmp_path / "floor.csv", "--floor", "0.25")
    zero = result(capsys, tmp_path / "floor.csv", "--floor", "zero", "--window", "10,1e4")
    assert free["exponent"] == pytest.approx(0.5, abs=1e-9)
    assert free["floor"] == pytest.approx(0.25, abs=1e-9)
    assert known["exponent"] == pytest.approx(0.5, abs=1e-10)
    assert abs(zero["exponent"] - 0.5) > 0.1
    assert (free["floor_kind"], known["floor_kind"], zero["floor_kind"]) == ("free", "given", "zero")


@pytest.mark.parametrize(("predicted", "verdict"), [(0.5, "agrees"), (0.7, "differs"), (0.55, "undecided")])
def test_verdict(capsys, file, predicted, verdict):
    found = result(capsys, file, "--predicted", predicted, "--margin", 0.05)
    assert (found["predicted"], found["margin"], found["verdict"]) == (predicted, 0.05, verdict)


def test_text_has_a_flag_a_line_and_no_long_arrays(capsys, file):
    assert run(app, ["curve", str(file), "--window", "10,20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["exponent", "0.5"] for line in lines)
    assert any(line.startswith("flag ") and "window short: 0.29 decades" in line for line in lines)
    assert not any("local" in line for line in lines)
    assert run(app, ["curve", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["flag", "none"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_drawn(capsys, file, tmp_path, suffix):
    picture = tmp_path / f"fit{suffix}"
    found = result(capsys, file, "--plot", picture, "--floor", "free")
    assert found["plot"] == str(picture)
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize("S", [1, 3])
def test_the_picture_shows_points_fit_band_and_residuals(S):
    columns = table(S)
    rows = columns["t"].to_numpy(), columns["loss"].to_numpy(), columns["seed"].to_numpy()
    fit = fit_curve(*rows, window=(10, 1000))
    figure = Figure()
    draw(figure, fit, clean(*rows))
    top, below = figure.axes
    line = next(line for line in top.lines if line.get_label().startswith("exponent 0.5"))
    assert np.array_equal(line.get_ydata(), fit.at(fit.t))
    assert len(top.collections) == len(below.collections) == (0 if S == 1 else 1)
    inside = [line for line in below.lines if line.get_color() == "C0"]
    assert sum(line.get_xdata().size for line in inside) == fit.points
    assert top.get_xscale() == top.get_yscale() == "log"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--window", "10"], "error: window: 10: two numbers"),
        (["--window", "a,b"], "error: window: a,b: two numbers"),
        (["--window", "10,1"], "error: window: 10,1: two numbers"),
        (["--window", "1e5,1e6"], "error: window: 100000,1e+06: a window with at least two rows"),
        (["--floor", "some"], "error: floor: some: zero, a number >= 0, or free"),
        (["--floor", "-1"], "error: floor: -1: zero, a number >= 0, or free"),
        (["--floor", "nan"], "error: floor: nan: zero"),
        (["--floor", "0.5"], "error: floor: 0.5: below the smallest loss"),
        (["--level", "2"], "error: level: 2.0: a number in (0, 1)"),
        (["--predicted", "0.5"], "error: margin: None: given together"),
        (["--margin", "0.5"], "error: margin: 0.5: given together"),
        (["--predicted", "0.5", "--margin", "0"], "error: margin: 0.0: a number > 0"),
        (["--predicted", "nan", "--margin", "1"], "error: predicted: nan: a finite number"),
        (["--plot", "fit.exe"], "error: plot: fit.exe: a file that ends in .png"),
        (["--plot", "absent/fit.png"], "error: plot: absent/fit.png: a file in a folder"),
        (["--windw", "1,2"], "error: arguments: No such option: --windw"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(capsys, file, options, error):
    assert run(app, ["curve", str(file), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(error)
    assert captured.err.count("\n") == 1


def test_bad_files_are_one_line_and_exit_2(capsys, tmp_path):
    (tmp_path / "text.csv").write_text("t,accuracy\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    for name, error in [
        ("text.csv", "error: loss: "),
        ("broken.parquet", "error: FILE: "),
        ("absent.csv", "error: FILE: "),
        ("", "error: FILE: "),
    ]:
        assert run(app, ["curve", str(tmp_path / name), "--json"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(error)
        assert captured.err.count("\n") == 1
