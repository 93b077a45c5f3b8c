"""`featscale worker` and `train.py -m`: what they print, their exit codes, and the display of a whole sweep."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fault_tools import QUIET, fill, records

from featscale.cli import board as board_module
from featscale.cli import sweep
from featscale.cli.app import app
from featscale.cli.board import Board
from featscale.cli.crew import THREADS, Crew
from featscale.cli.output import run
from featscale.cli.train import door
from featscale.errors import BadInput
from featscale.training.orders import Event

SMALL = ["name=small", "model.N=8", "data.M=50", "steps=40"]


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    code = run(app, ["worker", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def test_a_worker_trains_what_is_left_and_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = fill(tmp_path / "runs", *SMALL, "seed=0,1").folder
    code, result, err = called(capsys, folder)
    assert (code, result["runs"], result["status"], result["trained"]) == (0, 2, {"done": 2}, {"done": 2})
    assert (result["refused"], result["interrupted"], err.splitlines()[-1]) == ({}, False, "2 of 2 runs done")
    fill(tmp_path / "runs", *SMALL, "seed=2", "parameterization.gamma=-1")
    fill(tmp_path / "runs", *SMALL, "seed=2")
    code, result, err = called(capsys, tmp_path / "runs")
    assert (code, result["status"], result["trained"]) == (2, {"done": 3, "refused": 1}, {"done": 1})
    assert "error: parameterization.gamma: -1: a number >= 0" in err.splitlines()
    assert len(records(tmp_path / "runs")) == 3


def test_a_manifest_can_be_filled_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("FEATSCALE_RUNS", str(tmp_path / "runs"))
    folder, command = tmp_path / "runs" / "small", [*QUIET, *SMALL, "seed=0,1", "launcher=none"]
    assert sweep.run(door().parent / "conf", command) == 0
    assert f"small: 2 runs wait in the manifest for `featscale worker {folder}`" in capsys.readouterr().err
    assert not list(folder.glob("*/heartbeat"))
    assert called(capsys, folder)[1]["trained"] == {"done": 2}
    assert sweep.run(door().parent / "conf", command) == 0
    assert "nothing is left to train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nowhere"], "error: DIR: nowhere: a folder with a manifest.jsonl"),
        ([".", "--processes", "0"], "error: processes: 0: an integer >= 1"),
        ([".", "--per-gpu", "0"], "error: per-gpu: 0: an integer >= 1"),
        ([".", "--together", "0"], "error: together: 0: an integer >= 1"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, result, err = called(capsys, *arguments)
    assert (code, result, err.count("\n")) == (2, {}, 1)
    assert err.startswith(error)


def test_each_worker_has_its_device_and_its_threads() -> None:
    crew = Crew(4, 3, ("0", "2"))
    assert [crew.environment(i)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == ["0", "2", "0", "2"]
    assert {crew.environment(0)[name] for name in THREADS} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in Crew(1).environment(0)
    with pytest.raises(BadInput, match="^threads: "):
        Crew(1, 0)


def test_the_board_counts_each_run_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    clock = [0.0]
    with Board({"s/a": 100, "s/b": 100, "s/c": 100, "s/d": 100}, live=False) as board:
        clock[0] = 10.0
        assert board.text() == "0 of 4 runs done, 4 waiting"
        for event in (
            Event("s/a", "finished"),
            Event("s/a", "busy"),
            Event("s/b", "running", 0, 100),
            Event("s/b", "running", 50, 100),
            Event("s/c", "refused", cause="field: 1: an integer"),
            Event("s/c", "refused", cause="field: 1: an integer"),
        ):
            board.tell(event)
        assert board.text() == "1 of 4 runs done, 1 refused, 1 running, 1 waiting, about 30 s left"
        board.tell(Event("s/b", "diverged", 60, 100, "it grew"))
        assert dict(board.counts()) == {"done": 1, "diverged": 1, "refused": 1, "waiting": 1}
        assert dict(board.ended()) == {"diverged": 1}
    assert capsys.readouterr().err.splitlines() == [
        "error: field: 1: an integer",
        "s/b: diverged: it grew",
        "1 of 4 runs done, 1 diverged, 1 refused, 1 waiting, about 10 s left",
    ]


def test_a_live_board_ends_on_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Board({"s/a": 10}, live=True) as board:
        board.tell(Event("s/a", "running", 5, 10))
        board.tell(Event("s/a", "done", 10, 10))
    assert capsys.readouterr().err.splitlines()[-1] == "1 of 1 runs done"
