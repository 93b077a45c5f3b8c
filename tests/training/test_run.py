"""Runs through the real train.py: records, skipping, resuming bit for bit, divergence, bad input."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from featscale.cli.train import door

SMALL = ["model.N=24", "data.M=200", "steps=300", "seeds=2", "logger=none", "trainer.accelerator=cpu"]


def start(runs, *overrides):
    """train.py as a process of its own, with its runs in `runs`."""
    env = os.environ | {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(door()), *overrides]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=runs.parent
    )


@pytest.fixture
def train(monkeypatch, capfd):
    """train.py's own main in this process, which has imported Lightning already; returns (exit code, stderr)."""
    monkeypatch.syspath_prepend(str(door().parent))
    module = importlib.import_module("train")

    def run(runs, *overrides):
        monkeypatch.setenv("FEATSCALE_RUNS", str(runs))
        monkeypatch.chdir(runs.parent)
        monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
        monkeypatch.setattr(module, "outcomes", [])
        code = module.main()
        return code, capfd.readouterr().err

    return run


def only_run(runs) -> Path:
    (record,) = runs.glob("*/*/record.json")
    return record.parent


def test_a_run_leaves_a_record_and_a_curve_and_is_then_skipped(train, tmp_path):
    runs = tmp_path / "runs"
    assert train(runs, *SMALL)[0] == 0
    directory = only_run(runs)
    record = json.loads((directory / "record.json").read_text())
    curve = pl.read_parquet(directory / "curve.parquet")
    assert (record["status"], record["step"], record["seeds"]) == ("done", 300, [0, 1])
    assert curve.columns[:4] == ["step", "t", "seed", "loss"]
    assert curve["step"].max() == 300
    assert curve.filter(pl.col("step") == 300)["loss"].mean() == pytest.approx(record["metrics"]["loss"])
    assert not list(directory.glob("*.partial"))
    before = (directory / "record.json").stat().st_mtime_ns
    assert train(runs, *SMALL)[0] == 0
    assert (directory / "record.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["model.N=200", "data.B=8", "optimizer.eta0=0.1", "seeds=2", "steps=4000"],
        ["model=mlp", "model.N=32", "data=circle", "precision=float32", "steps=3000", "trainer.threads=1"],
    ],
    ids=["solvable", "network"],
)
def test_killed_and_resumed_gives_the_same_curve_bit_for_bit(train, tmp_path, overrides):
    overrides = [*overrides, "logger=none", "trainer.checkpoint_seconds=0", "trainer.chunk=50"]
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    kills = 0
    while kills < 3:
        process = start(runs, *overrides)
        for _ in range(600):
            if process.poll() is not None or list(runs.glob("*/*/checkpoint.pt")):
                break
            time.sleep(0.05)
        time.sleep(0.2 * kills)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert not list(runs.glob("*/*/record.json")), "the kills came too late to interrupt anything"
    assert train(runs, *overrides)[0] == 0
    assert train(undisturbed, *overrides)[0] == 0
    resumed, whole = (pl.read_parquet(only_run(folder) / "curve.parquet") for folder in (runs, undisturbed))
    assert resumed.equals(whole)


def test_divergence_is_a_recorded_result_with_step_and_cause(train, tmp_path):
    """Stable at first (η λ < 2), but K grows: η K λ passes the bound later."""
    runs = tmp_path / "runs"
    code, _ = train(runs, *SMALL, "parameterization.gamma=50", "optimizer.eta0=1.2")
    record = json.loads((only_run(runs) / "record.json").read_text())
    assert code == 0
    assert record["status"] == "diverged"
    assert 0 < record["stopped"][0]["step"] <= 300
    assert record["stopped"][0]["K"] is not None
    assert "seeds diverged" in record["cause"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["data.alpha=1"], "error: alpha: 1: "),
        (["data.beta=-1"], "error: beta: -1: "),
        (["data.beta=nan"], "error: data.beta: nan: "),
        (["parameterization.gamma=-1"], "error: parameterization.gamma: -1: "),
        (["model.N=201"], "error: width: 201: "),
        (["data.B=0"], "error: data.B: 0: "),
        (["optimizer.eta0=2"], "error: eta: 2: "),
        (["model=mlpp"], "error: model: mlpp: one of "),
        (["model.widht=3"], "error: model.widht: "),
        (
            ["data=mnist", "model=mlp", "data.download=false", "paths.data=/nowhere", "paths.cache=/nowhere"],
            "error: paths.data: /nowhere: ",
        ),
        (["name=../../etc"], "error: name: "),
        (["trainer.devices=2"], "error: trainer.devices: 2: "),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(train, tmp_path, overrides, line):
    runs = tmp_path / "runs"
    code, error = train(runs, *([] if "data=mnist" in overrides else SMALL), *overrides)
    assert code == 2
    (only,) = [each for each in error.splitlines() if each.startswith("error: ")]
    assert only.startswith(line)
    assert "Traceback" not in error
    assert not list(runs.glob("*/*/record.json"))


def test_a_sweep_goes_on_past_bad_input(train, tmp_path):
    runs = tmp_path / "runs"
    code, error = train(runs, "-m", *SMALL, "parameterization.gamma=0,-1,1")
    assert code == 2
    assert error.count("error:") == 1
    assert len(list(runs.glob("*/*/record.json"))) == 2


def test_an_unwritable_runs_folder_is_one_line(train, tmp_path):
    """A file where the folder of the name should be: as unwritable as a read-only folder, also for root."""
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "adhoc").write_text("")
    code, error = train(runs, *SMALL)
    assert code == 2
    assert "error: paths.runs: " in error
    assert "Traceback" not in error


def test_a_record_cut_in_half_is_one_line(train, tmp_path):
    runs = tmp_path / "runs"
    train(runs, *SMALL)
    record = only_run(runs) / "record.json"
    record.write_bytes(record.read_bytes()[:100])
    code, error = train(runs, *SMALL)
    assert code == 2
    assert "error: record: " in error
    assert "Traceback" not in error


def test_the_door_is_a_process_with_exit_codes(tmp_path):
    """Once as users call it: exit code 2 and one line, no traceback."""
    process = start(tmp_path / "runs", *SMALL, "data.alpha=1")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 2
    assert [line for line in error.splitlines() if line.startswith("error: ")] == ["error: alpha: 1: a number > 1"]
