"""`featscale fit law`, `frontier` and `next`: JSON, text, pictures, runs folders and one-line errors."""

import json
import math

import numpy as np
import polars as pl
import pytest

from featscale.cli.app import app
from featscale.cli.output import run
from featscale.fits.law_fit import fit_law
from featscale.fits.observations import observe
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import Record

WIDTHS, T = (8, 16, 32, 64, 128, 256), np.concatenate([[0.0], np.logspace(0, 4, 41)])


def table(S=3, sigma=0.01, widths=WIDTHS, seed=0):
    rng = np.random.default_rng(seed)
    parts = []
    for s in range(S):
        for N in widths:
            t = np.maximum(T, 0.5)
            loss = (t**-0.67 + N**-1.5) * np.exp(sigma * np.cumsum(rng.normal(size=T.size)) / np.sqrt(T.size))
            parts.append(pl.DataFrame({"N": N, "t": T, "loss": loss, "seed": s}))
    return pl.concat(parts)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("laws") / "widths.csv"
    table().write_csv(path)
    return path


def result(capsys, *arguments):
    assert run(app, ["fit", *map(str, arguments), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def refusal(capsys, *arguments):
    assert run(app, ["fit", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_law_json_holds_the_contract_and_agrees_with_the_function(capsys, file):
    found = result(capsys, "law", file, "--law", "sum", "--draws", 40)
    assert {"parameters", "intervals", "objective", "flags", "condition"} <= set(found)
    columns = {name: table()[name].to_numpy() for name in ("N", "t", "loss", "seed")}
    fit = fit_law("sum", observe(columns, ("t", "N")), draws=40)
    assert found["parameters"] == pytest.approx(dict(fit.parameters), rel=1e-9)
    assert found["intervals"]["chi"] == pytest.approx(list(fit.intervals["chi"]), rel=1e-6)
    assert found["cluster_kind"] == "seed"


def test_law_of_chinchilla_points(capsys, data_folder, tmp_path):
    rows = pl.read_csv(data_folder / "chinchilla" / "svg_extracted_data.csv")
    points = tmp_path / "points.csv"
    rows.with_columns(D=pl.col("Training FLOP") / (6 * pl.col("Model Size"))).write_csv(points)
    found = result(capsys, "law", points, "--law", "chinchilla", "--drop-highest", 5, "--column", "N=Model Size")
    assert found["objective"] <= 1.0183e-3
    assert found["parameters"]["alpha"] == pytest.approx(0.3473, abs=5e-4)


def test_frontier_json_and_parquet(capsys, file, tmp_path):
    table().write_parquet(tmp_path / "widths.parquet")
    found = result(capsys, "frontier", file, "--draws", 40)
    assert found == result(capsys, "frontier", tmp_path / "widths.parquet", "--draws", 40)
    assert set(found["estimates"]) == {"envelope", "isoflop", "parametric"}
    for estimate in found["estimates"].values():
        lo, hi = estimate["loss_interval"]
        assert lo < estimate["loss_exponent"] < hi
    assert found["agree"] in ("compatible", "differ")


def test_next_proposes_runs(capsys, file):
    found = result(capsys, "next", file, "--budget", 1e4, "--target", "r", "--count", 3)
    assert len(found["runs"]) == 3
    for proposal in found["runs"]:
        assert proposal["gamma"] is None
        assert proposal["seeds"] * proposal["N"] * proposal["t"] == pytest.approx(1e4)
        assert proposal["half_width_after"] < proposal["half_width_now"]


def test_next_tells_the_richness_apart(capsys, tmp_path):
    lazy, rich = (table(S, seed=S).with_columns(gamma=pl.lit(g)) for S, g in ((8, 0.0), (2, 1.0)))
    pl.concat([lazy, rich]).write_csv(tmp_path / "both.csv")
    best = result(capsys, "next", tmp_path / "both.csv", "--budget", 1e4)["runs"][0]
    assert best["gamma"] == 1.0
    assert "gamma: 0, 1: one of them, with --gamma" in refusal(capsys, "law", tmp_path / "both.csv", "--law", "sum")
    one = result(capsys, "law", tmp_path / "both.csv", "--law", "sum", "--gamma", 1, "--draws", 20)
    assert one["rows"] == rich.height


def finished(root, N, seeds, loss):
    """A finished run of width N in the folder `root`."""
    science = {"model": {"N": N}, "parameterization": {"gamma": 1.0}, "seed": 0, "seeds": seeds, "steps": 2}
    directory = RunDirectory(run_path(root, "widths", config_hash(science)))
    directory.path.mkdir(parents=True)
    directory.write_curve(loss)
    record = Record(
        status="done",
        name="widths",
        hash=config_hash(science),
        science=science,
        seeds=tuple(range(seeds)),
        step=2,
        steps=2,
        wall_seconds=1.0,
        started="2025-01-01T00:00:00+00:00",
        ended="2025-01-01T00:00:01+00:00",
        metrics={"loss": 0.5},
        flops=1.0,
    )
    directory.write_record(record)


def test_a_folder_of_runs_is_a_table(capsys, file, tmp_path):
    whole = table().with_columns(step=(pl.col("t") * 10).cast(pl.Int64))
    for N in WIDTHS:
        finished(tmp_path, N, 3, whole.filter(pl.col("N") == N).select("step", "t", "seed", "loss"))
    found = result(capsys, "law", tmp_path, "--law", "sum", "--draws", 20)
    assert found == result(capsys, "law", file, "--law", "sum", "--draws", 20)
    assert "no such column" in refusal(capsys, "law", tmp_path, "--law", "chinchilla")


def test_bottleneck_takes_noise_from_eta_and_batch(capsys, tmp_path):
    parts = [table(2, 0.0).with_columns(eta=pl.lit(0.1), batch=pl.lit(float(B))) for B in (1, 16)]
    noisy = pl.concat(parts).with_columns(
        loss=pl.col("loss") + 3 * pl.col("eta") / pl.col("batch") * pl.max_horizontal("t", pl.lit(0.5)) ** -1.3
    )
    noisy.write_csv(tmp_path / "noise.csv")
    found = result(capsys, "law", tmp_path / "noise.csv", "--law", "bottleneck", "--draws", 20)
    assert found["parameters"]["sgd"] == pytest.approx(1.3, abs=1e-3)
    assert found["parameters"]["chi"] == pytest.approx(0.67, abs=1e-3)
    noisy.drop("eta").write_csv(tmp_path / "lacking.csv")
    assert "error: eta: no such column" in refusal(capsys, "law", tmp_path / "lacking.csv", "--law", "bottleneck")


def test_pictures_are_drawn(capsys, file, tmp_path):
    result(capsys, "law", file, "--law", "sum", "--draws", 20, "--plot", tmp_path / "law.png")
    result(capsys, "frontier", file, "--draws", 20, "--plot", tmp_path / "frontier.png")
    N = np.geomspace(1e7, 1e10, 30)
    D = np.geomspace(1e12, 1e9, 30)
    points = pl.DataFrame({"N": N, "D": D, "loss": 1.7 + 400 * N**-0.34 + 2000 * D**-0.37})
    points.write_csv(tmp_path / "points.csv")
    result(
        capsys, "law", tmp_path / "points.csv", "--law", "chinchilla", "--draws", 20, "--plot", tmp_path / "points.png"
    )
    for name in ("law", "frontier", "points"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_text_has_every_parameter_and_flag(capsys, file):
    assert run(app, ["fit", "law", str(file), "--law", "sum", "--draws", "20"]) == 0
    text = capsys.readouterr().out
    assert "A t^-chi + B N^-r" in text
    assert all(f"\n{name} " in text for name in ("A", "B", "chi", "r", "objective", "flag"))
    assert run(app, ["fit", "frontier", str(file), "--draws", "20"]) == 0
    text = capsys.readouterr().out
    assert all(method in text for method in ("envelope", "isoflop", "parametric", "agree"))


BAD = {
    "negative": (lambda d: d.with_columns(loss=-pl.col("loss")), "error: loss: -1.04418 in row 2: > 0"),
    "zero": (lambda d: d.with_columns(loss=pl.lit(0.0)), "error: loss: 0 in row"),
    "one point": (lambda d: d.filter(pl.col("t") > 0)[:1], "error: FILE: 1 usable rows: at least 5"),
    "missing column": (lambda d: d.drop("N"), "error: N: no such column"),
    "empty": (lambda d: d[:0], "error: FILE"),
    "NaN width": (lambda d: d.with_columns(N=pl.lit(math.nan)), "error: N: nan in row 1"),
    "all losses NaN": (lambda d: d.with_columns(loss=pl.lit(math.nan)), "error: loss:"),
    "repeated t": (lambda d: pl.concat([d, d]), "error: t: 1 twice in one run"),
    "mixed seeds": (lambda d: d.drop("seed"), "error: t: 1 twice in one run: each t once a run; a column seed"),
    "one width": (lambda d: d.filter(pl.col("N") == 64), "error: N: 64 in every row"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_one_clear_line(capsys, tmp_path, name):
    change, told = BAD[name]
    change(table()).write_csv(tmp_path / "bad.csv")
    assert told in refusal(capsys, "law", tmp_path / "bad.csv", "--law", "sum")
    if name not in ("one point", "one width"):
        assert told in refusal(capsys, "frontier", tmp_path / "bad.csv")


def test_bad_options_are_one_clear_line(capsys, file, tmp_path):
    for options, told in (
        (("law", file, "--law", "cubic"), "error: law: cubic: one of chinchilla"),
        (("law", file, "--law", "sum", "--delta", -1), "error: delta: -1"),
        (("law", file, "--law", "sum", "--level", 2), "error: level: 2"),
        (("law", file, "--law", "sum", "--draws", 2), "error: draws: 2"),
        (("law", file, "--law", "sum", "--window", "1"), "error: window: 1"),
        (("law", file, "--law", "sum", "--window", "1e6,1e7"), "error: window: 1e+06,1e+07: a window with rows in it"),
        (("law", file, "--law", "sum", "--plot", tmp_path / "law.txt"), "error: plot:"),
        (("law", file, "--law", "sum", "--drop-highest", 10**6), "error: drop_highest:"),
        (("law", file, "--law", "sum", "--cluster", "points"), "error: cluster: points: seed or run"),
        (("law", file, "--law", "sum", "--column", "N"), "error: column: N: NAME=COLUMN"),
        (("law", file, "--law", "sum", "--gamma", 1), "error: gamma: 1"),
        (("law", tmp_path / "none.csv", "--law", "sum"), "error: FILE"),
        (("law", tmp_path, "--law", "sum"), "error: FILE"),
        (("frontier", file, "--floor", 1.0), "error: floor: 1.0: below the smallest loss"),
        (("next", file, "--budget", -1), "error: budget: -1"),
    ):
        assert told in refusal(capsys, *options)


def test_a_diverged_seed_is_flagged(capsys, tmp_path):
    lost = table().with_columns(
        loss=pl.when((pl.col("seed") == 1) & (pl.col("t") > 100)).then(math.nan).otherwise(pl.col("loss"))
    )
    lost.write_csv(tmp_path / "lost.csv")
    found = result(capsys, "law", tmp_path / "lost.csv", "--law", "sum", "--draws", 20)
    assert any("rows without a finite loss left out" in flag for flag in found["flags"])


def test_a_constant_loss_is_flagged(capsys, tmp_path):
    table().with_columns(loss=pl.lit(0.5)).write_csv(tmp_path / "flat.csv")
    found = result(capsys, "law", tmp_path / "flat.csv", "--law", "sum", "--draws", 20)
    assert found["flags"]
    assert any("constant" in flag for flag in found["flags"])
