"""`featscale runs`: one JSON object on stdout, a table for people, and exit codes of the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featscale.cli.output import run
from featscale.cli.runs import app
from featscale.runs.claims import claim
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.manifest import Manifest, Planned
from featscale.runs.record import Outcome, Record


def add(root: Path, N: int, status: Outcome = "done", name: str = "width") -> RunDirectory:
    science = {"model": {"N": N}, "seed": 0}
    directory = RunDirectory(run_path(root, name, config_hash(science)))
    record = Record(
        status=status,
        name=name,
        hash=directory.path.name,
        science=science,
        seeds=(0,),
        step=2,
        steps=2,
        wall_seconds=30.0,
        started="2025-01-01T00:00:00+00:00",
        ended="2025-01-01T00:00:30+00:00",
        cause=None if status == "done" else "a\nreason",
        metrics={"loss": 1 / N},
        flops=1e6,
    )
    with claim(directory):
        directory.write_config(science, science)
        directory.write_curve(pl.DataFrame({"step": [0, 2], "t": [0.0, 1.0], "seed": [0, 0], "loss": [1.0, 1 / N]}))
        directory.write_record(record)
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Runs of two names: two done, one diverged, one failed, one whose record cannot be read."""
    root = tmp_path / "runs"
    add(root, 64)
    add(root, 128)
    add(root, 256, "diverged")
    add(root, 512, "failed", "depth")
    damaged = add(root, 1024, name="depth")
    (damaged.path / "record.json").write_text("{")
    return root


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def result(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What the command prints with --json, and nothing else on either stream."""
    code, out, err = called(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_list_has_every_run_with_its_science(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = result(capsys, "list", root)["runs"]
    assert [run["name"] for run in runs] == ["depth"] * 2 + ["width"] * 3
    assert {run["model.N"]: run["status"] for run in runs} == {
        64: "done",
        128: "done",
        256: "diverged",
        512: "failed",
        1024: "unreadable",
    }
    done = next(run for run in runs if run["model.N"] == 64)
    assert (done["loss"], done["step"], done["wall_seconds"], done["cause"]) == (1 / 64, 2, 30.0, None)


def test_list_is_one_whole_line_a_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "list", root)
    lines = out.splitlines()
    assert (code, err, len(lines)) == (0, "", 6)
    assert lines[0].split()[:4] == ["name", "hash", "status", "step"]
    (failed,) = [line for line in lines if " failed " in line]
    assert "model.N=512" in failed
    assert failed.endswith("a reason")


def test_list_can_be_narrowed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = result(capsys, "list", root, "--status", "failed,unreadable", "--name", "depth")["runs"]
    assert sorted(run["model.N"] for run in runs) == [512, 1024]
    assert result(capsys, "list", root, "--name", "nothing") == {"runs": []}
    code, out, err = called(capsys, "list", root, "--status", "finished")
    assert (code, out) == (2, "")
    assert err.startswith("error: status: finished: some of done, ")


def test_status_counts_and_sums(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "status", root)
    assert found["names"] == {"depth": {"failed": 1, "unreadable": 1}, "width": {"done": 2, "diverged": 1}}
    assert found["total"] == {"done": 2, "diverged": 1, "failed": 1, "unreadable": 1}
    assert (found["runs"], found["running"], found["wall_seconds"], found["flops"]) == (5, [], 120.0, 4e6)
    code, out, _ = called(capsys, "status", root)
    assert code == 0
    assert out.splitlines()[0].split() == ["name", "done", "diverged", "failed", "unreadable", "runs"]
    assert out.splitlines()[3].split() == ["total", "2", "1", "1", "1", "5"]
    assert "in all 2 min 0 s of training, 4e+06 FLOPs" in out


def plan(root: Path, name: str, *sizes: int, steps: int = 2) -> None:
    """Put runs into the manifest of a sweep."""
    science = [{"model": {"N": N}, "seed": 0} for N in sizes]
    Manifest(root / name).add(Planned(one | {"name": name, "steps": steps}, one) for one in science)


def test_runs_of_a_manifest_that_nobody_began_are_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(root, "width", 64, 128, 2048, 4096)
    runs = result(capsys, "list", root, "--status", "missing")["runs"]
    assert [(run["name"], run["model.N"], run["steps"]) for run in sorted(runs, key=lambda run: run["model.N"])] == [
        ("width", 2048, 2),
        ("width", 4096, 2),
    ]
    found = result(capsys, "status", root / "width")
    assert found["total"] == {"done": 2, "diverged": 1, "missing": 2}
    # Three runs of two steps took 30 s each.
    assert found["seconds_left"] == pytest.approx(2 * 30.0)
    assert "time left: about 1 min 0 s with the workers of now" in called(capsys, "status", root / "width")[1]


def test_time_left_is_unknown_until_a_run_of_the_name_is_finished(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result(capsys, "status", root)["seconds_left"] == 0.0
    plan(root, "new", 8)
    assert result(capsys, "status", root)["seconds_left"] is None
    assert "time left: unknown until a run is finished" in called(capsys, "status", root)[1]


def test_a_damaged_line_of_a_manifest_costs_itself_only(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    plan(root, "width", 2048, 4096)
    manifest = root / "width" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("4096", "4097"))
    assert len(result(capsys, "list", root, "--status", "missing")["runs"]) == 1
    assert "line 2" in caplog.text


def test_status_guesses_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    science = {"model": {"N": 1}}
    directory = RunDirectory(run_path(tmp_path, "live", config_hash(science)))
    with claim(directory):
        directory.write_config(science, science)
        _, out, _ = called(capsys, "status", tmp_path)
        assert f"running: live {directory.path.name}: not begun, time left unknown" in out
        beat = {"step": 300, "steps": 1000, "t": 3.0, "time": 1010.0, "since": [1000.0, 100]}
        (directory.path / "heartbeat").write_text(json.dumps(beat))
        (running,) = result(capsys, "status", tmp_path)["running"]
        _, out, _ = called(capsys, "status", tmp_path)
    assert (running["step"], running["steps"], running["seconds_left"]) == (300, 1000, 35.0)
    assert f"running: live {directory.path.name}: step 300 of 1000, about 35 s left" in out


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_collect_writes_the_finished_curves(
    suffix: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"curves.{suffix}"
    found = result(capsys, "collect", root, "-o", file, "--column", "N=model.N")
    columns = ["name", "hash", "N", "model.N", "step", "t", "seed", "loss"]
    assert found == {
        "file": str(file),
        "runs": 3,
        "rows": 6,
        "columns": columns,
        "left_out": {"failed": 1, "unreadable": 1},
    }
    rows = pl.read_parquet(file) if suffix == "parquet" else pl.read_csv(file)
    assert rows.columns == columns
    assert rows.filter(pl.col("step") == 2).select("N", "loss").sort("N").rows() == [(N, 1 / N) for N in (64, 128, 256)]
    code, out, _ = called(capsys, "collect", root, "-o", file)
    assert code == 0
    assert "6 rows of 3 runs" in out
    assert "left out: 1 failed, 1 unreadable" in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("-o", "curves.txt"), "output: curves.txt: a file that ends in"),
        (("-o", "nowhere/curves.csv"), "output: nowhere/curves.csv: a file in an existing folder"),
        (("-o", "curves.csv", "--column", "N"), "column: N: NEW=ENTRY"),
        (("-o", "curves.csv", "--column", "N=model.M"), "columns: model.M: an entry"),
    ],
)
def test_collect_refuses_in_one_line(
    arguments: tuple[str, ...],
    error: str,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root.parent)
    code, out, err = called(capsys, "collect", root, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {error}")
    assert [path.name for path in root.parent.iterdir()] == ["runs"]


def test_collect_of_nothing_finished_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "runs", 1, "failed")
    code, _, err = called(capsys, "collect", tmp_path / "runs", "-o", tmp_path / "curves.csv")
    assert code == 2
    assert "a folder with a run that is done or diverged" in err
    assert not (tmp_path / "curves.csv").exists()


@pytest.mark.parametrize("arguments", [("list",), ("status",), ("collect", "-o", "curves.csv")])
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_folder_that_is_not_there_is_bad_input(
    arguments: tuple[str, ...], as_json: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = arguments
    code, out, err = called(capsys, command, tmp_path / "nowhere", *options, *as_json)
    assert (code, out) == (2, "")
    assert err == f"error: DIR: {tmp_path / 'nowhere'}: an existing folder of runs\n"


@pytest.mark.parametrize("command", ["list", "status"])
def test_an_empty_folder_is_no_error(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert result(capsys, command, tmp_path)["runs"] in ([], 0)
    assert called(capsys, command, tmp_path)[0] == 0
