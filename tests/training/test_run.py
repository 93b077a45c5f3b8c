"""Runs through the real train.py: records, skipping, resuming bit for bit, divergence, bad input."""

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


def start(runs, *overrides, **environment):
    """train.py as a process, with its runs in `runs`."""
    env = os.environ | {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(door()), *overrides]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=runs.parent)


def train(runs, *overrides, **environment):
    """Run train.py to its end; returns (exit code, stderr)."""
    process = start(runs, *overrides, **environment)
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def only_run(runs) -> Path:
    (record,) = runs.glob("*/*/record.json")
    return record.parent


def test_a_run_leaves_a_record_and_a_curve_and_is_then_skipped(tmp_path):
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
def test_killed_and_resumed_gives_the_same_curve_bit_for_bit(tmp_path, overrides):
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


def test_divergence_is_a_recorded_result_with_step_and_cause(tmp_path):
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
        (["data.beta=nan"], "error: beta: nan: "),
        (["parameterization.gamma=-1"], "error: parameterization.gamma: -1: "),
        (["model.N=201"], "error: width: 201: "),
        (["data.B=0"], "error: data.B: 0: "),
        (["optimizer.eta0=2"], "error: eta: 2: "),
        (["model=mlpp"], "error: model: mlpp: one of "),
        (["+model.widht=3"], "error: "),
        (["data=mnist", "model=mlp", "data.download=false", "paths.data=/nowhere", "paths.cache=/nowhere"], "error: paths.data: /nowhere: "),
        (["name=../../etc"], "error: name: "),
        (["trainer.devices=2"], "error: trainer.devices: 2: "),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, overrides, line):
    runs = tmp_path / "runs"
    code, error = train(runs, *([] if "data=mnist" in overrides else SMALL), *overrides)
    assert code == 2
    assert error.strip().splitlines()[-1].startswith(line) or error.strip().splitlines()[0].startswith(line)
    assert "Traceback" not in error
    assert not list(runs.glob("*/*/record.json"))


def test_a_sweep_goes_on_past_bad_input(tmp_path):
    runs = tmp_path / "runs"
    code, error = train(runs, "-m", *SMALL, "parameterization.gamma=0,-1,1")
    assert code == 2
    assert error.count("error:") == 1
    assert len(list(runs.glob("*/*/record.json"))) == 2


def test_an_unwritable_runs_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    code, error = train_in_file(tmp_path)
    assert code == 2
    assert "error: paths.runs: " in error
    assert "Traceback" not in error


def train_in_file(tmp_path):
    """train.py with a file where its runs folder should be: as unwritable as a read-only one, also for root."""
    env = os.environ | {"FEATSCALE_RUNS": str(tmp_path / "file"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(door()), *SMALL], env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr
