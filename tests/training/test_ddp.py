"""Runs on two processes: the curves of one process, the same stops and refusals, and records that only the leader writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
import torch
from fault_tools import NETWORK

from featscale.cli.compose import part
from featscale.cli.sweep import fill
from featscale.cli.train import door
from featscale.errors import BadInput
from featscale.runs.manifest import Manifest
from featscale.training.ddp import SlicedParts
from featscale.training.march import March
from featscale.training.place import Place, alone
from featscale.training.run import Request
from featscale.training.team import Sliced, meeting
from featscale.training.worker import Parts

SWEEP = ["-m", "name=team", *NETWORK]


def variables(runs: Path) -> dict[str, str]:
    return os.environ | {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(door().parent)}


def train(runs: Path, *overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(door()), *SWEEP, *overrides]
    return subprocess.run(command, env=variables(runs), capture_output=True, text=True, timeout=300)


def plan(runs: Path, *overrides: str) -> Path:
    """Fill the manifest of a sweep, in this process and without training; returns its folder."""
    places = [f"paths.runs={runs}"]
    (manifest,), _, refused = fill(door().parent / "conf", [*SWEEP[1:], *overrides, *places])
    assert refused == 0
    return manifest.folder


class Tasks:
    """Two processes as torchrun would start them."""

    def __init__(self, runs: Path, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
        command = [sys.executable, "-m", "featscale.cli.app", "worker", str(folder), "--ddp", *options]
        self.tasks = [
            subprocess.Popen(
                command,
                env=variables(runs) | meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    def ended(self, seconds: float = 240) -> list[tuple[int, str]]:
        """Exit code and stderr of each."""
        said = [task.communicate(timeout=seconds)[1] for task in self.tasks]
        return [(task.returncode, text) for task, text in zip(self.tasks, said, strict=True)]


def curves(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.parent.name: pl.read_parquet(path.with_name("curve.parquet")) for path in folder.glob("*/record.json")}


def furthest(folder: Path, other: Path) -> float:
    """The largest relative difference of the losses of two folders of the same runs."""
    here, there = curves(folder), curves(other)
    assert sorted(here) == sorted(there)
    assert here
    worst = 0.0
    for name, curve in here.items():
        assert curve["step"].equals(there[name]["step"])
        worst = max(worst, float(((curve["loss"] - there[name]["loss"]) / there[name]["loss"]).abs().max()))
    return worst


@pytest.mark.slow
def test_two_processes_in_a_sweep_have_the_curves_of_one(tmp_path):
    """Stopped once on the way, by a signal to one process only: both save at the same step, and both go on from there."""
    overrides = ["steps=1000", "seed=0,1", "trainer.checkpoint_seconds=1000"]
    folder = plan(tmp_path / "runs", *overrides)
    tasks = Tasks(tmp_path / "runs", folder)
    for _ in range(4000):
        if list(folder.glob("*/heartbeat")) or any(task.poll() is not None for task in tasks.tasks):
            break
        time.sleep(0.05)
    tasks.tasks[1].send_signal(signal.SIGTERM)
    (leader, told), (follower, _) = tasks.ended()
    assert (leader, follower) == (143, 143), told
    assert "stopped by SIGTERM" in told
    assert list(folder.glob("*/checkpoint.pt"))
    assert len(curves(folder)) < 2
    assert [code for code, _ in Tasks(tmp_path / "runs", folder).ended()] == [0, 0]
    assert train(tmp_path / "alone", *overrides).returncode == 0
    assert furthest(folder, tmp_path / "alone" / "team") < 1e-5
    assert all(curve["loss"][-1] < 0.5 * curve["loss"][0] for curve in curves(folder).values()), "something was learnt"
    for record in folder.glob("*/record.json"):
        entries = json.loads(record.read_text())
        assert (entries["status"], entries["processes"]) == ("done", 2)


@pytest.mark.slow
def test_torchrun_starts_it_and_a_run_that_cannot_be_sliced_is_refused_alone(tmp_path):
    """A batch of 7 cannot be shared by two; the other run of the sweep is trained. Without averaging curves would differ."""
    folder = plan(tmp_path / "runs", "steps=40", "data.B=7,8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "featscale.cli.app", "worker", str(folder), "--ddp"]
    done = subprocess.run(command, env=variables(tmp_path / "runs"), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "error: data.B: 7: a multiple of the 2 processes" in done.stderr
    (record,) = folder.glob("*/record.json")
    assert json.loads(record.read_text())["science"]["data"]["B"] == 8


@pytest.mark.slow
def test_a_lost_process_is_no_failed_run(tmp_path):
    folder = plan(tmp_path / "runs", "steps=100000", "trainer.checkpoint_seconds=0.5")
    tasks = Tasks(tmp_path / "runs", folder)
    for _ in range(4000):
        if list(folder.glob("*/checkpoint.pt")) or any(task.poll() is not None for task in tasks.tasks):
            break
        time.sleep(0.05)
    tasks.tasks[1].kill()
    (leader, told), _ = tasks.ended()
    assert leader == 1
    assert "error: rank 0: " in told
    assert "Traceback" not in told
    assert not list(folder.glob("*/record.json"))
    assert list(folder.glob("*/checkpoint.pt"))


class Apart:
    """A team whose processes never speak."""

    place = Place(0, 2, 0)

    def average(self, gradients: Sequence[torch.Tensor]) -> None:
        """Leave them as they are."""


def losses(folder: Path, parts: Parts) -> torch.Tensor:
    """The losses of the only run of a sweep, trained in this process from these parts."""
    (run,) = Manifest(folder).read()
    module, data = parts.module(Request(run.config, run.science))
    data.setup("fit")
    module.on_fit_start()
    March([module], 1).to(module.T)
    return torch.tensor([row["loss"] for row in module.rows])


def test_without_averaging_the_curve_is_another(tmp_path):
    """The negative twin: a process that trains on its slice alone does not have the curve of the whole batch."""
    folder = plan(tmp_path / "runs", "steps=200")
    whole = losses(folder, Parts(part))
    alone_on_its_slice = losses(folder, SlicedParts(part, Apart()))
    assert float((alone_on_its_slice / whole - 1).abs().max()) > 1e-2


class Batches:
    """A source of known batches."""

    B, name = 6, "batches"

    def batch(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.arange(6.0).view(6, 1) + 10 * step + 100 * seed
        return x, -x


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_slices_are_the_batch(processes):
    parts = [Sliced(Batches(), Place(rank, processes, rank)).batch(1, 2) for rank in range(processes)]
    x, y = Batches().batch(1, 2)
    assert torch.equal(torch.cat([part[0] for part in parts]), x)
    assert torch.equal(torch.cat([part[1] for part in parts]), y)
    assert Sliced(Batches(), Place(0, processes, 0)).name == "batches"


def test_an_uneven_slice_is_refused():
    with pytest.raises(BadInput, match=r"^data\.B: 6: a multiple of the 4 processes"):
        Sliced(Batches(), Place(0, 4, 0))


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1"}, Place(1, 2, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}, None),
        ({"RANK": "x", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, None),
    ],
)
def test_a_process_finds_its_place(environment, place):
    assert Place.found(environment) == place


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_STEP_NODELIST": "a[01-04]", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}]
)
def test_tasks_of_slurm_meet_at_the_first_node_of_their_step(environment):
    """Also in a job of `--ntasks`, which Lightning refuses; two steps of a job meet at two ports."""
    first, second = meeting(environment), meeting(environment | {"SLURM_STEP_ID": "1", "SLURM_NTASKS": "2"})
    assert first["MASTER_ADDR"] == second["MASTER_ADDR"] == ("a01" if environment else "127.0.0.1")
    assert first["MASTER_PORT"] != second["MASTER_PORT"]


def test_one_command_in_each_process_is_refused_with_what_to_do():
    alone("train.py", {})
    with pytest.raises(
        BadInput,
        match=r"^WORLD_SIZE: 2: train\.py is for one process; fill the manifest with `train\.py -m … launcher=none`.* --ddp`",
    ):
        alone("train.py", {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})


@pytest.mark.parametrize(
    ("environment", "arguments", "line"),
    [
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            [str(door()), "-m", "seed=0,1"],
            "error: WORLD_SIZE: 2: ",
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            ["worker"],
            "error: WORLD_SIZE: 2: a worker without --ddp",
        ),
        ({}, ["worker", "--ddp"], "error: ddp: one process: several, started by torchrun or srun: "),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            ["worker", "--ddp", "--processes", "2"],
            "error: processes: 2: 1 with --ddp",
        ),
        (
            {},
            [str(door()), "trainer.devices=2"],
            "error: trainer.devices: 2: 1: on several devices a run is trained by launcher=slurm launcher.ranks=2, or by `",
        ),
        ({}, [str(door()), "launcher=slurm"], "error: launcher: slurm: local for a single run; a sweep has -m"),
    ],
    ids=["multirun", "worker", "alone", "processes", "devices", "launcher"],
)
@pytest.mark.slow
def test_broken_combinations_are_refused_with_a_sentence(environment, arguments, line, tmp_path):
    command = [sys.executable, *(["-m", "featscale.cli.app"] if arguments[0] == "worker" else []), *arguments]
    command += [str(tmp_path)] if arguments[0] == "worker" else []
    done = subprocess.run(command, env=variables(tmp_path) | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert [text for text in done.stderr.splitlines() if text.startswith(line)], done.stderr
