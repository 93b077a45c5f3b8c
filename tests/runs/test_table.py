"""Tables of many runs: every state has its row, nothing that lies around is fatal, and curves keep what tells runs apart."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.runs import table as module
from featscale.runs.claims import claim
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import Outcome, Record
from featscale.runs.table import COLUMNS, collect, curves, runs_table, varying_columns


def science_of(N: int, gamma: float = 1.0, B: float = math.inf, seed: int = 0) -> dict[str, Any]:
    return {"model": {"N": N}, "data": {"B": B}, "parameterization": {"gamma": gamma}, "seed": seed, "steps": 2}


def curve_of(loss: float, seed: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"step": [0, 1, 2], "t": [0.0, 0.5, 1.0], "seed": [seed] * 3, "loss": [1.0, 0.9, loss]})


def directory_of(root: Path, science: dict[str, Any], name: str = "width") -> RunDirectory:
    return RunDirectory(run_path(root, name, config_hash(science)))


def record_of(science: dict[str, Any], status: Outcome = "done", **change: Any) -> Record:
    record = Record(
        status=status,
        name="width",
        hash=config_hash(science),
        science=science,
        seeds=(science["seed"],),
        step=2,
        steps=2,
        wall_seconds=1.5,
        started="2025-01-01T00:00:00+00:00",
        ended="2025-01-01T00:00:01+00:00",
        metrics={"loss": 0.5},
        flops=1e6,
    )
    return replace(record, **change)


def add(
    root: Path,
    science: dict[str, Any],
    status: Outcome | None = "done",
    curve: pl.DataFrame | None = None,
    name: str = "width",
) -> RunDirectory:
    """Put a run on the disk, without a record where `status` is None."""
    run = directory_of(root, science, name)
    with claim(run) as held:
        run.write_config(science, science)
        held.beat(1, 2, 0.5)
        run.write_curve(curve_of(0.5, science["seed"]) if curve is None else curve)
        if status:
            run.write_record(record_of(science, status, cause=None if status == "done" else "a reason"))
    return run


def row(table: pl.DataFrame, run: RunDirectory) -> dict[str, Any]:
    return table.row(by_predicate=pl.col("path") == str(run.path), named=True)


def test_every_state_has_its_row(tmp_path: Path) -> None:
    statuses: tuple[Outcome | None, ...] = ("done", "diverged", "failed", None)
    runs = [add(tmp_path, science_of(2**i), status) for i, status in enumerate(statuses)]
    damaged = add(tmp_path, science_of(16), name="other")
    (damaged.path / "record.json").write_text("{")
    live = directory_of(tmp_path, science_of(32), "other")
    with claim(live) as held:
        live.write_config({}, science_of(32))
        held.beat(1, 2, 0.5)
        bare = directory_of(tmp_path, science_of(64), "other")
        with claim(bare):
            pass
        table = runs_table(tmp_path)
    expected = ["done", "diverged", "failed", "interrupted", "unreadable", "running", "missing"]
    assert [row(table, run)["status"] for run in (*runs, damaged, live, bare)] == expected
    assert table.height == 7
    assert table.columns[: len(COLUMNS)] == list(COLUMNS)
    assert row(table, runs[0]) == {
        "name": "width", "hash": runs[0].path.name, "status": "done", "cause": None, "step": 2, "steps": 2, "loss": 0.5,
        "wall_seconds": 1.5, "flops": 1e6, "seconds_left": None, "heartbeat_age": None,
        "started": "2025-01-01T00:00:00+00:00", "ended": "2025-01-01T00:00:01+00:00", "path": str(runs[0].path),
        "model.N": 1, "data.B": math.inf, "parameterization.gamma": 1.0, "seed": 0,
    }  # fmt: skip
    assert row(table, runs[1])["cause"] == "a reason"
    interrupted, unreadable, running = (row(table, run) for run in (runs[3], damaged, live))
    assert interrupted["heartbeat_age"] < 60
    assert (interrupted["step"], interrupted["steps"], interrupted["data.B"]) == (1, 2, math.inf)
    assert "delete the file" in unreadable["cause"]
    assert unreadable["model.N"] == 16
    assert running["model.N"] == 32
    assert row(table, bare)["model.N"] is None
    assert table["name"].to_list() == sorted(table["name"].to_list())


def test_the_root_may_be_any_folder_above_or_one_run(tmp_path: Path) -> None:
    run = add(tmp_path / "deep" / "er", science_of(1))
    for root in (tmp_path, tmp_path / "deep", run.path.parent, run.path, str(run.path)):
        table = runs_table(root)
        assert table.height == 1
        assert table.select("name", "hash", "path").row(0) == ("width", run.path.name, str(run.path))


def test_what_is_no_run_is_no_row(tmp_path: Path) -> None:
    add(tmp_path, science_of(1))
    (tmp_path / "0123456789ab" / "notes").mkdir(parents=True)
    (tmp_path / "width" / "not-a-hash").mkdir()
    (tmp_path / "width" / "not-a-hash" / "record.json").write_text("{}")
    (tmp_path / "width" / "0123456789ab").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path)
    assert runs_table(tmp_path).height == 1


def test_an_empty_folder_is_an_empty_table_and_no_folder_is_bad_input(tmp_path: Path) -> None:
    assert runs_table(tmp_path).columns == list(COLUMNS)
    assert runs_table(tmp_path).is_empty()
    assert collect(tmp_path).columns == ["name", "hash", "step", "t", "seed", "loss"]
    (tmp_path / "file").touch()
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(BadInput, match=r"^root: "):
            runs_table(root)


def test_a_folder_that_cannot_be_listed_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, science_of(1))
    (tmp_path / "closed").mkdir()
    scan = module.os.scandir

    def guarded(folder: str) -> Any:
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(module.os, "scandir", guarded)
    with caplog.at_level(logging.WARNING):
        assert runs_table(tmp_path).height == 1
    assert len(caplog.messages) == 1
    assert f"{tmp_path / 'closed'}: Permission denied" in caplog.messages[0]


@pytest.mark.parametrize(
    "change",
    [
        {"step": 10**30, "metrics": {"loss": 10**400}},
        {"metrics": {"loss": "low"}, "flops": -(10**400)},
        {"cause": "no file \\ud800", "science": {"model": {"N": "\\ud800"}, "data": [1, {"a": None}]}},
        {"science": {"model": {"N": 10**300}, "hash": "x", "path": 3}},
    ],
)
def test_odd_values_that_others_wrote_break_no_table(change: dict[str, Any], tmp_path: Path) -> None:
    good, odd = add(tmp_path, science_of(1)), add(tmp_path, science_of(2))
    path = odd.path / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change).replace("\\\\u", "\\u"))
    table = runs_table(tmp_path)
    assert row(table, good)["status"] == "done"
    assert row(table, odd)["status"] == "done"
    assert row(table, odd)["path"] == str(odd.path)


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, None, 3], pl.Int64, [1, None, 3]),
        ([1, 0.5], pl.Float64, [1.0, 0.5]),
        ([True, None], pl.Boolean, [True, None]),
        (["a", None], pl.String, ["a", None]),
        (["inf", 128], pl.Float64, [math.inf, 128.0]),
        (["adam", 1], pl.String, ["adam", "1"]),
        ([True, 1], pl.String, ["true", "1"]),
        ([[64, 128], [64]], pl.String, ["[64, 128]", "[64]"]),
    ],
)
def test_a_science_column_has_the_kind_of_its_values(
    values: list[Any], kind: Any, read: list[Any], tmp_path: Path
) -> None:
    for i, value in enumerate(values):
        add(tmp_path, {"i": i, "x": value, "seed": 0} if value is not None else {"i": i, "seed": 0})
    table = runs_table(tmp_path).sort("i")
    assert table.schema["x"] == kind
    assert table["x"].to_list() == read
    assert varying_columns(table) == ["i", "x"]


def test_collected_curves_keep_what_tells_the_runs_apart(tmp_path: Path) -> None:
    for N, seed in ((64, 0), (128, 5)):
        add(tmp_path, science_of(N, seed=seed), curve=curve_of(0.5 / N, seed))
    table = collect(tmp_path)
    assert table.columns == ["name", "hash", "model.N", "step", "t", "seed", "loss"]
    assert table.height == 6
    for N, seed in ((64, 0), (128, 5)):
        part = table.filter(pl.col("model.N") == N)
        assert part.select("step", "t", "seed", "loss").equals(curve_of(0.5 / N, seed))
        assert part["hash"].unique().to_list() == [config_hash(science_of(N, seed=seed))]


def test_only_finished_curves_are_collected(tmp_path: Path) -> None:
    statuses: tuple[Outcome | None, ...] = ("done", "diverged", "failed", None)
    for i, status in enumerate(statuses):
        add(tmp_path, science_of(i), status)
    assert collect(tmp_path)["model.N"].unique().sort().to_list() == [0, 1]


def test_curves_of_different_columns_and_lengths_go_together(tmp_path: Path) -> None:
    add(tmp_path, science_of(1), curve=curve_of(0.1).with_columns(K=pl.lit(2.0)))
    add(tmp_path, science_of(2), curve=pl.DataFrame([]))
    add(tmp_path, science_of(3), curve=curve_of(0.3).head(1))
    table = collect(tmp_path).sort("model.N", "step")
    assert table["model.N"].to_list() == [1, 1, 1, 3]
    assert table["K"].to_list() == [2.0, 2.0, 2.0, None]


def test_columns_of_ones_own_are_there_even_when_they_do_not_vary(tmp_path: Path) -> None:
    add(tmp_path, science_of(64))
    assert collect(tmp_path).columns == ["name", "hash", "step", "t", "seed", "loss"]
    table = collect(tmp_path, {"N": "model.N", "gamma": "parameterization.gamma"})
    assert table.columns == ["name", "hash", "N", "gamma", "step", "t", "seed", "loss"]
    assert table["N"].to_list() == [64, 64, 64]
    with pytest.raises(BadInput, match=r"^columns: model\.M: an entry .*model\.N"):
        collect(tmp_path, {"N": "model.M"})
    for taken in ("loss", "hash"):
        with pytest.raises(BadInput, match=f"^columns: {taken}: "):
            collect(tmp_path, {taken: "model.N"})


def test_a_finished_run_without_its_curve_is_said(tmp_path: Path) -> None:
    run = add(tmp_path, science_of(1))
    (run.path / "curve.parquet").unlink()
    with pytest.raises(BadInput, match=r"^curve: .*curve\.parquet"):
        collect(tmp_path)
    assert curves(runs_table(tmp_path).filter(pl.col("status") != "done")).is_empty()


def test_two_thousand_runs_are_two_thousand_rows(tmp_path: Path) -> None:
    template = record_of(science_of(0)).to_json()
    for i in range(2000):
        path = tmp_path / f"name{i % 3}" / f"{i:012x}"
        path.mkdir(parents=True)
        if i % 10:
            (path / "record.json").write_text(template.replace('"N": 0', f'"N": {i}'))
        else:
            (path / "config.yaml").touch()
    table = runs_table(tmp_path)
    assert table.height == 2000
    assert table["status"].value_counts().sort("status").rows() == [("done", 1800), ("interrupted", 200)]
    assert table["model.N"].drop_nulls().sort().to_list() == [i for i in range(2000) if i % 10]
    assert table["name"].is_sorted()
