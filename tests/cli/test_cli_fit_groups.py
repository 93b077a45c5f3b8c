"""`featscale fit curve` for several conditions: folders of runs, pairs, predictions."""

import json

import numpy as np
import polars as pl
import pytest

from featscale.cli.fit import app
from featscale.cli.fit_groups import Group, matched, read_groups
from featscale.cli.output import run
from featscale.errors import BadInput
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import Record

T = np.logspace(0, 4, 97)


def curve(chi, seeds, sigma=0.01):
    """Columns of a curve of some seeds; a seed has the same noise whatever the exponent."""
    noise = {s: np.exp(sigma * np.random.default_rng(s).standard_normal()) ** np.log(T) for s in seeds}
    loss = np.concatenate([T**-chi * noise[s] for s in seeds])
    step = np.tile(np.arange(T.size), len(seeds))
    return pl.DataFrame({"step": step, "t": np.tile(T, len(seeds)), "seed": np.repeat(seeds, T.size), "loss": loss})


def table(tmp_path):
    frames = [
        curve(chi, [0, 1, 2, 3]).with_columns(pl.lit(gamma).alias("gamma")) for gamma, chi in ((0.0, 0.5), (1.0, 0.6))
    ]
    pl.concat(frames).write_parquet(tmp_path / "both.parquet")
    return tmp_path / "both.parquet"


def result(capsys, *arguments):
    assert run(app, ["curve", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_groups_of_a_table_and_their_paired_difference(capsys, tmp_path):
    found = result(capsys, table(tmp_path), "--pair", "gamma", "--predicted", 0.5, "--margin", 0.05)
    assert [group["config"] for group in found["groups"]] == [{"gamma": 0.0}, {"gamma": 1.0}]
    assert [group["verdict"] for group in found["groups"]] == ["agrees", "differs"]
    (difference,) = found["differences"]
    assert (difference["first"], difference["second"]) == ({"gamma": 0.0}, {"gamma": 1.0})
    # The seeds' own noise cancels.
    assert difference["difference"] == pytest.approx(-0.1, abs=1e-9)
    assert np.allclose(difference["interval"], -0.1, atol=1e-9)
    apart = found["groups"][0]["interval"]
    assert apart[1] - apart[0] > 0.01


def test_text_of_groups_and_a_picture(capsys, tmp_path):
    assert run(app, ["curve", str(table(tmp_path)), "--pair", "gamma", "--plot", str(tmp_path / "both.png")]) == 0
    text = capsys.readouterr().out
    assert "gamma 1" in text
    assert "(gamma 0) less (gamma 1): -0.1 in" in text
    assert (tmp_path / "both.png").stat().st_size > 10_000


def write_run(root, frame, gamma=0.0, N=8, seed=0):
    """A finished run with this curve."""
    science = {"model": {"N": N}, "parameterization": {"gamma": gamma}, "seed": seed}
    directory = RunDirectory(run_path(root, "some", config_hash(science)))
    now = "2025-01-01T00:00:00+00:00"
    directory.path.mkdir(parents=True)
    directory.write_config(science, science)
    directory.write_curve(frame)
    directory.write_record(
        Record(
            status="done",
            name="some",
            hash=config_hash(science),
            science=science,
            seeds=(seed,),
            step=2,
            steps=2,
            wall_seconds=1.0,
            started=now,
            ended=now,
            metrics={"loss": 0.5},
            flops=1.0,
        )
    )
    return directory


def test_a_folder_of_runs_is_fitted_configuration_by_configuration(capsys, tmp_path):
    for seed in range(3):
        for gamma, chi in ((0.0, 0.5), (1.0, 0.6)):
            write_run(tmp_path, curve(chi, [seed]), gamma, seed=seed)
    found = result(capsys, tmp_path, "--pair", "gamma")
    assert [group["config"] for group in found["groups"]] == [{"parameterization.gamma": g} for g in (0.0, 1.0)]
    for group, chi in zip(found["groups"], (0.5, 0.6), strict=True):
        assert len(group["runs"]) == 3
        assert group["seeds"] == [0, 1, 2]
        assert group["interval"][0] < chi < group["interval"][1]
    assert found["differences"][0]["difference"] == pytest.approx(-0.1, abs=1e-9)


def test_runs_that_call_their_seeds_alike_are_replicates(tmp_path):
    for seed in range(2):
        write_run(tmp_path, curve(0.5, [seed]).with_columns(seed=pl.lit(0)), seed=seed)
    (group,) = read_groups(tmp_path, [])
    assert len(np.unique(group.seed)) == 2


def test_a_missing_pair_is_named(capsys, tmp_path):
    file = table(tmp_path)
    for option, error in (("depth", "error: pair: depth: a column"), ("seed", "error: pair: seed: ")):
        assert run(app, ["curve", str(file), "--pair", option]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(error)
    assert run(app, ["curve", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: FILE: ")


def test_a_group_that_cannot_be_fitted_says_why_beside_the_others(capsys, tmp_path):
    frame = pl.read_parquet(table(tmp_path))
    bad = frame.with_columns(pl.when(pl.col("gamma") == 1).then(-1.0).otherwise(pl.col("loss")).alias("loss"))
    bad.write_csv(tmp_path / "bad.csv")
    assert run(app, ["curve", str(tmp_path / "bad.csv"), "--pair", "gamma"]) == 2
    assert capsys.readouterr().err.startswith("error: pair: gamma: an entry that differs")


def test_predictions_by_curve_and_by_times(capsys, tmp_path):
    theory = np.logspace(-1, 5, 300)
    (tmp_path / "theory.json").write_text(
        json.dumps({"t": theory.tolist(), "loss": (theory**-0.5 + 9 / theory).tolist()})
    )
    curve(0.5, [0, 1, 2]).with_columns(loss=pl.col("loss") + 9 / pl.col("t")).write_csv(tmp_path / "m.csv")
    found = result(capsys, tmp_path / "m.csv", "--predicted-curve", tmp_path / "theory.json", "--margin", 0.05)
    assert found["window_kind"] == "predicted"
    assert found["verdict"] == "agrees"
    assert abs(found["predicted"] - found["exponent"]) < 0.02
    assert found["p_equivalent"] < 0.025
    times = result(capsys, tmp_path / "m.csv", "--after", "10,100", "--before", "1e5")
    assert times["window"] == pytest.approx([300, 1e4])
    (tmp_path / "bad.json").write_text("{}")
    for arguments, error in (
        (["--predicted-curve", tmp_path / "bad.json", "--margin", "1"], "error: predicted-curve: "),
        (["--predicted-curve", tmp_path / "theory.json"], "error: margin: None"),
        (["--after", "a"], "error: after: a"),
        (["--after", "1e9"], "error: window: 3e+09,10000: a prediction that leaves"),
    ):
        assert run(app, ["curve", str(tmp_path / "m.csv"), *map(str, arguments)]) == 2
        assert capsys.readouterr().err.startswith(error)


def test_a_run_directory_is_one_group(tmp_path):
    directory = write_run(tmp_path, curve(0.5, [0, 1]))
    (group,) = read_groups(directory.path, [])
    assert group.config == {}
    assert group.t.size == 2 * T.size


def test_pairs_are_alike_but_for_the_entry():
    frame = [({"a.gamma": g, "a.N": N}, g) for N in (8, 16) for g in (1.0, 0.0, 3.0)]
    groups = [Group(config, T, T**-0.5, None) for config, _ in frame]
    pairs = [(first.config, second.config) for first, second in matched(groups, "gamma")]
    assert len(pairs) == 4
    assert all(first["a.gamma"] == 0 and first["a.N"] == second["a.N"] for first, second in pairs)
    assert [second["a.gamma"] for _, second in pairs] == [1.0, 3.0, 1.0, 3.0]
    with pytest.raises(BadInput, match="^pair: eta: one of: a.gamma, a.N"):
        matched(groups, "eta")
