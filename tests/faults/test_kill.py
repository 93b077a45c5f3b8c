"""Sweeps whose processes are killed at any moment lose nothing, do nothing twice, and have the curves they would have had."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fault_tools import QUIET, Witness, children, descendants, ended, fill, finish_here, same, train, worker

pytestmark = pytest.mark.slow

KILLS = 30
SWEEP = [
    "name=killed",
    "model.N=64",
    "data.M=300",
    "data.B=8",
    "optimizer.eta0=0.1",
    "steps=12000",
    "trainer.checkpoint_seconds=0.2",
    "seed=range(0,20)",
    "parameterization.gamma=0.5,1",
]


def victims(parent: int) -> list[int]:
    """The workers of a crew: what the process that forks them started."""
    return [worker for forker in children(parent) for worker in children(forker)]


def test_thirty_kills_change_nothing(tmp_path: Path) -> None:
    """40 runs, four workers; every tenth time it is the parent that dies, and its command is given again."""
    rng = random.Random(20261125)
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    folder = fill(runs, *SWEEP).folder
    witness, kills = Witness(runs), 0
    with open(tmp_path / "stderr", "a") as said:
        process = worker(folder, "--processes", "4", "--threads", "1", stderr=said, stdout=subprocess.DEVNULL)
        while (code := process.poll()) != 0:
            witness.look()
            if code is not None:
                assert code == -signal.SIGKILL, (tmp_path / "stderr").read_text()[-2000:]
                process = worker(folder, "--processes", "4", "--threads", "1", stderr=said, stdout=subprocess.DEVNULL)
            living = victims(process.pid)
            if kills < KILLS and living:
                time.sleep(rng.uniform(0.0, 0.15))
                parent = kills % 10 == 9
                with suppress(ProcessLookupError):
                    os.kill(process.pid if parent else rng.choice(living), signal.SIGKILL)
                    kills += 1
                if parent:
                    process.wait()
            time.sleep(0.02)
    assert kills == KILLS, "the sweep ended before all were killed: make it longer"
    assert witness.look() == 40
    finish_here(fill(undisturbed, *SWEEP).folder)
    same(runs, undisturbed)
    assert "was killed (code -9)" in (tmp_path / "stderr").read_text()


def test_orphans_save_and_stop(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = fill(runs, *SWEEP, "steps=10000000", "seed=0,1").folder
    process = worker(folder, "--processes", "2", "--threads", "1")
    end = time.monotonic() + 120
    while len(list(folder.glob("*/checkpoint.pt"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    below = list(descendants(process.pid))
    process.kill()
    process.communicate()
    while [pid for pid in below if os.path.exists(f"/proc/{pid}")] and time.monotonic() < end:
        time.sleep(0.05)
    assert [pid for pid in below if os.path.exists(f"/proc/{pid}")] == []


def test_two_commands_that_fill_and_train_one_manifest_at_once(tmp_path: Path) -> None:
    """Their grids overlap; each run is trained by one of them."""
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    base = [*QUIET, *SWEEP[:5], "steps=3000", "trainer.checkpoint_seconds=0.3"]
    grids = [["seed=range(0,14)"], ["seed=range(6,20)"]]
    both = [train(runs, "-m", *base, *grid, "parameterization.gamma=0.5,1") for grid in grids]
    witness = Witness(runs)
    while any(process.poll() is None for process in both):
        witness.look()
        time.sleep(0.02)
    assert [ended(process)[0] for process in both] == [0, 0]
    finish_here(runs / "killed")
    assert witness.look() == 40
    finish_here(fill(undisturbed, *base, "seed=range(0,20)", "parameterization.gamma=0.5,1").folder)
    same(runs, undisturbed)
