"""Runs that tasks of srun train together, typed by hand and through the launcher: told to stop, they save, and go on to the curve of one process."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from cluster import wait_for
from fault_tools import NETWORK

from featscale.cli import sweep
from featscale.cli.crew import Crew
from featscale.cli.engines.slurm import Slurm
from featscale.cli.train import door
from featscale.cli.worker import work
from featscale.errors import BadInput
from featscale.runs.manifest import Manifest, manifests
from featscale.training.orders import Policy

SWEEP = [*NETWORK, "trainer.checkpoint_seconds=1000", "steps=500"]


def plan(runs: Path, name: str) -> Manifest:
    """The manifest of one run, filled in this process and without training."""
    (manifest,), _, refused = sweep.fill(door().parent / "conf", [*SWEEP, f"name={name}", f"paths.runs={runs}"])
    assert refused == 0
    return manifest


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pl.DataFrame:
    """The curve of one process."""
    manifest = plan(tmp_path_factory.mktemp("alone") / "runs", "alone")
    assert work(manifests(manifest.folder), Crew(), Policy(), live=False)[1] == 0
    return curve(manifest.folder)


def curve(folder: Path) -> pl.DataFrame:
    """The curve of the only run of a sweep, which two processes trained unless its folder is called alone."""
    (record,) = folder.glob("*/record.json")
    entries = json.loads(record.read_text())
    assert (entries["status"], entries["processes"]) == ("done", 1 if folder.name == "alone" else 2)
    return pl.read_parquet(record.with_name("curve.parquet"))


def furthest(one: pl.DataFrame, other: pl.DataFrame) -> float:
    """The largest relative difference of their losses."""
    assert one["step"].equals(other["step"])
    return float(((one["loss"] - other["loss"]) / other["loss"]).abs().max())


@pytest.mark.slurm
@pytest.mark.slow
def test_tasks_of_srun_are_stopped_twice_and_end_at_the_curve_of_one_process(cluster, alone, tmp_path, monkeypatch):
    """First the command of docs/clusters.md in a job that has its tasks by `--ntasks`, told to stop by scancel. Then train.py's launcher goes on
    with the same run; a better partition sends its job back into the queue, from where it goes on by itself."""
    manifest, code = plan(tmp_path / "runs", "team"), tmp_path / "code"
    command = f"srun --ntasks 2 {sys.executable} -m featscale.cli.app worker {manifest.folder} --ddp; echo $? > {code}"
    cluster.call("sbatch", "--ntasks=2", "--job-name=hand", f"--output={tmp_path}/log", f"--wrap={command}")
    stop_when_training(manifest.folder, lambda: cluster.call("scancel", "--signal=TERM", "--name=hand"))
    cluster.wait_until_idle(60)
    assert code.read_text() == "143\n", (tmp_path / "log").read_text()
    assert stops(tmp_path / "log") == 1, "only the leader says so"
    assert list(manifest.folder.glob("*/checkpoint.pt"))
    assert not list(manifest.folder.glob("*/record.json"))

    here = {"FEATSCALE_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(door().parent)}
    for name, value in (here | cluster.environment).items():
        monkeypatch.setenv(name, value)
    slurm = ["launcher=slurm", "launcher.ranks=2", "launcher.memory_gb=1"]
    assert sweep.run(door().parent / "conf", [*SWEEP, "name=team", *slurm]) == 0
    urgent = ("sbatch", "--partition=urgent", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1")
    stop_when_training(manifest.folder, lambda: cluster.call(*urgent))
    cluster.wait_until_idle(120)
    (log,) = manifest.folder.glob("slurm/*.log")
    assert stops(log) == 1, log.read_text()
    assert furthest(curve(manifest.folder), alone) < 1e-5
    assert alone["loss"][-1] < 0.5 * alone["loss"][0], "something was learnt"


def stop_when_training(folder: Path, stop: Callable[[], object]) -> None:
    """Call `stop` once a new heartbeat is there, and take the heartbeat away."""
    wait_for(lambda: list(folder.glob("*/heartbeat")), 120, "training")
    stop()
    for sign in folder.glob("*/heartbeat"):
        sign.unlink()


def stops(log: Path) -> int:
    """How often a job was stopped and saved."""
    return log.read_text().count("stopped by SIGTERM: saved at step ")


def test_a_batch_script_of_ranks_starts_them_with_srun():
    script = Slurm(ranks=4, gpus=1, cpus=3).script(Path("/runs/a"), retry_failed=True)
    for line in ("--ntasks=4", "--gpus-per-task=1", "--cpus-per-task=3"):
        assert f"#SBATCH {line}" in script.splitlines()
    assert (
        f"srun --ntasks=4 --cpus-per-task=3 {sys.executable} -m featscale.cli.app worker /runs/a --ddp --retry-failed &"
        in script
    )
    assert "srun" not in Slurm(cpus=3).script(Path("/runs/a"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"ranks": 0}, "launcher.ranks"),
        ({"ranks": 2, "processes": 2}, "launcher.processes"),
        ({"ranks": 2, "gpus": 2}, "launcher.gpus"),
    ],
)
def test_ranks_that_cannot_be_are_refused(options, field):
    with pytest.raises(BadInput) as caught:
        Slurm(**options)
    assert caught.value.field == field
