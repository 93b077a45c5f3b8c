"""Sweeps on a real Slurm: arrays beyond MaxArraySize, preemption, time limits, cancelled jobs; every curve as if nothing had happened."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from cluster import wait_for

from featscale.cli.engines.slurm import Slurm, arrays
from featscale.cli.train import door
from featscale.errors import BadInput

SWEEP = [
    "-m",
    "model._target_=sleepy.Sleepy",
    "model.N=16",
    "data.M=100",
    "data.B=4",
    "optimizer.eta0=0.05",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.checkpoint_seconds=1",
    "trainer.chunk=20",
]


def train(runs: Path, *overrides: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """train.py as a process of its own."""
    variables = {
        "FEATSCALE_RUNS": str(runs),
        "OMP_NUM_THREADS": "1",
        "FEATSCALE_TARGETS": "sleepy",
        **(environment or {}),
    }
    variables["PYTHONPATH"] = f"{Path(__file__).parent}:{door().parent}"
    seeds = [] if any(override.startswith("seed=") for override in overrides) else ["seed=0"]
    command = [sys.executable, str(door()), *SWEEP, *seeds, *overrides]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=300)


def curves(folder: Path) -> dict[str, pl.DataFrame]:
    """Hash → curve of every finished run of a sweep."""
    return {path.parent.name: pl.read_parquet(path.with_name("curve.parquet")) for path in folder.glob("*/record.json")}


def same(runs: Path, local: Path, counts: dict[str, int]) -> bool:
    """Whether all runs of these names finished, with the bits that they have in the folder `local`."""
    there = curves(local)
    for name, count in counts.items():
        here = curves(runs / name)
        assert len(here) == count
        if not all(here[run].equals(there[run]) for run in here):
            return False
    return True


def said(folder: Path) -> str:
    """All that the jobs of a sweep wrote."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("slurm/*.log")))


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    """The same runs, and a few more, without Slurm and without sleep; a run's hash knows nothing of the sweep's name."""
    runs = tmp_path_factory.mktemp("local") / "runs"
    done = train(runs, "name=local", "steps=200,400,600", "seed=0,1,2")
    assert done.returncode == 0, done.stderr
    return runs / "local"


@pytest.mark.slurm
@pytest.mark.slow
def test_arrays_survive_preemption_and_a_long_run_its_time_limit(cluster, local, tmp_path):
    """Two sweeps at once. One is of three jobs, of which a better partition sends two back. The other is a run of minutes, whose job of two
    minutes is told to save a minute before they are over, and is quick when it goes on."""
    runs = tmp_path / "runs"
    limit = ["launcher.tasks=1", "launcher.minutes=2", "launcher.signal_seconds=60", "launcher.partition=urgent"]
    limit += ["launcher=slurm", "launcher.memory_gb=0.4", "name=limit", "steps=600"]
    done = train(runs, *limit, environment={**cluster.environment, "SLEEPY": "0.5"})
    assert done.returncode == 0, done.stderr
    array = ["launcher=slurm", "launcher.tasks=3", "launcher.memory_gb=0.4", "name=array", "steps=200", "seed=0,1,2"]
    done = train(runs, *array, environment={**cluster.environment, "SLEEPY": "0.08"})
    assert done.returncode == 0, done.stderr
    jobs = re.search(r"job ([\d, ]+)\)", done.stderr)
    assert jobs, done.stderr
    assert len(jobs[1].split(",")) == 2, "MaxArraySize is 2, so three tasks are two arrays"
    wait_for(lambda: list(runs.glob("array/*/checkpoint.pt")), 200, "a first checkpoint")
    cluster.call("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 1")
    cluster.wait_until_idle(280)
    assert "stopped by SIGTERM" in said(runs / "array")
    assert "stopped by SIGUSR2: saved at step" in said(runs / "limit")
    assert same(runs, local, {"array": 3, "limit": 1})


@pytest.mark.slurm
@pytest.mark.slow
def test_a_warned_job_goes_back_by_itself_and_a_cancelled_one_does_not(cluster, local, tmp_path):
    """In a partition with a grace time Slurm only warns; whoever ends then has ended. A cancelled job must not come back."""
    runs = tmp_path / "runs"
    slurm = [
        "launcher=slurm",
        "launcher.tasks=1",
        "launcher.cpus=4",
        "launcher.processes=2",
        "launcher.partition=grace",
    ]
    environment = {**cluster.environment, "SLEEPY": "0.04", "SLEEPY_RESUMED": "0.1"}
    sweep = ["name=grace", "steps=400", "seed=0,1"]
    assert train(runs, *sweep, *slurm, "launcher.memory_gb=1", environment=environment).returncode == 0
    wait_for(lambda: list(runs.glob("*/*/checkpoint.pt")), 200, "a first checkpoint")
    cluster.call("scancel", "--partition=grace")
    cluster.wait_until_idle(120)
    assert not curves(runs / "grace")
    assert "stopped by SIGTERM" in said(runs / "grace")
    # The same command goes on. The heartbeat that is waited for is a new one.
    for sign in runs.glob("grace/*/heartbeat"):
        sign.unlink()
    assert train(runs, *sweep, *slurm, "launcher.memory_gb=1", environment=environment).returncode == 0
    wait_for(lambda: list(runs.glob("grace/*/heartbeat")), 200, "training")
    cluster.call("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 1")
    cluster.wait_until_idle(240)
    assert said(runs / "grace").count("stopped by SIGTERM") == 2
    assert same(runs, local, {"grace": 2})


def test_a_batch_script_says_what_was_asked_for():
    script = Slurm(minutes=90, gpus=2, processes=4, cpus=8, partition="fast", options=["--account=us"]).script(
        Path("/runs/a b")
    )
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in (
        "--time=90",
        "--gpus-per-task=2",
        "--cpus-per-task=8",
        "--partition=fast",
        "--account=us",
        "--requeue",
    ):
        assert f"#SBATCH {line}" in lines
    assert '#SBATCH --output="/runs/a b/slurm/%A_%a.log"' in lines
    assert "worker '/runs/a b' --processes 4 --threads 2 --gpus 0,1 &" in script


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"minutes": 0}, "launcher.minutes"),
        ({"minutes": 1, "signal_seconds": 60}, "launcher.signal_seconds"),
        ({"options": ["--x\nrm -r /"]}, "launcher.options"),
        ({"options": ["rm"]}, "launcher.options"),
        ({"memory_gb": 0}, "launcher.memory_gb"),
    ],
)
def test_bad_options_are_named(options, field):
    with pytest.raises(BadInput) as caught:
        Slurm(**options)
    assert caught.value.field == field


def test_a_folder_that_would_change_the_script_is_refused():
    with pytest.raises(BadInput):
        Slurm().script(Path('/runs/a"\n#SBATCH --wrap'))


def test_arrays_are_split():
    assert list(arrays(4, 3)) == [3, 1]
    assert sum(arrays(10_000, 1001)) == 10_000
