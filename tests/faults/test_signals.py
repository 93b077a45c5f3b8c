"""Commands that are asked to stop save, end with the code a scheduler needs, and go on to the curves they would have had."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from fault_tools import QUIET, ended, fill, finish_here, same, train, wait_for, worker

pytestmark = pytest.mark.slow

# One chunk is the whole run: a signal can only be obeyed inside of it.
LONG = [
    "name=stopped",
    "model.N=64",
    "data.M=300",
    "data.B=8",
    "optimizer.eta0=0.1",
    "steps=30000",
    "trainer.chunk=30000",
]


@pytest.mark.parametrize("way", ["one run", "sweep", "workers"])
def test_stopped_inside_a_chunk_and_resumed_bit_for_bit(way: str, tmp_path: Path) -> None:
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    grid = ["seed=1"] if way == "one run" else ["seed=1,2"]
    signum = {"one run": signal.SIGTERM, "sweep": signal.SIGUSR2, "workers": signal.SIGINT}[way]

    def start() -> Any:
        if way == "workers":
            return worker(fill(runs, *LONG, *grid).folder, "--processes", "2", "--threads", "1", "--together", "1")
        return train(runs, *(["-m"] if way == "sweep" else []), *QUIET, *LONG, *grid)

    process = start()
    wait_for(lambda: len(list(runs.glob("*/*/heartbeat"))) == (1 if way == "one run" else 2), process)
    process.send_signal(signum)
    code, error = ended(process)
    assert code == 128 + signum, error
    assert f"stopped by {signum.name}" in error
    assert "the same command goes on from there" in error
    assert not list(runs.glob("*/*/record.json")), "it came too late to interrupt anything"
    assert len(list(runs.glob("*/*/checkpoint.pt"))) == (1 if way == "one run" else 2)
    code, error = ended(start())
    assert code == 0, error
    finish_here(fill(undisturbed, *LONG, *grid).folder)
    same(runs, undisturbed)
