"""What the fault tests share: sweeps of the solvable model, commands as processes, and what must be the same after a fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from featscale.cli import sweep
from featscale.cli.crew import Crew
from featscale.cli.train import door
from featscale.cli.worker import work
from featscale.runs.manifest import Manifest, manifests
from featscale.runs.table import collect, runs_table
from featscale.training.orders import Policy

QUIET = ["logger=none", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.progress=false"]
# A network small enough to be trained by several processes in seconds.
NETWORK = [
    "model=mlp",
    "model.N=16",
    "data=circle",
    "data.B=8",
    "optimizer.eta0=0.05",
    "logger=none",
    "trainer.accelerator=cpu",
]
# Entries of a record that say when and where a run was trained, not what came out.
CIRCUMSTANCES = ("wall_seconds", "started", "ended", "group_members", "overrides", "git", "mirror_problem")


def environment(runs: Path) -> dict[str, str]:
    """For processes whose runs go into `runs`."""
    return os.environ | {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def train(runs: Path, *overrides: str, **options: Any) -> subprocess.Popen[str]:
    """train.py as a process."""
    return _process([sys.executable, str(door()), *overrides], runs, options)


def worker(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`featscale worker` as a process."""
    code = "import sys; from featscale.cli.app import main; sys.argv[0] = 'featscale'; main()"
    return _process([sys.executable, "-c", code, "worker", str(folder), *arguments], folder.parent, options)


def _process(command: list[str], runs: Path, options: dict[str, Any]) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, env=environment(runs), text=True, **pipes)


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    """(exit code, stderr) of a process that must end by itself."""
    _, error = process.communicate(timeout=seconds)
    assert "Traceback" not in error, error
    return process.returncode, error


def fill(runs: Path, *overrides: str) -> Manifest:
    """The manifest of a sweep, not yet trained."""
    before = os.environ.get("FEATSCALE_RUNS")
    os.environ["FEATSCALE_RUNS"] = str(runs)
    try:
        (manifest,), _, refused = sweep.fill(door().parent / "conf", [*QUIET, *overrides])
    finally:
        os.environ.pop("FEATSCALE_RUNS") if before is None else os.environ.update(FEATSCALE_RUNS=before)
    assert refused == 0
    return manifest


def finish_here(folder: Path) -> None:
    """Train what is left in this process, undisturbed."""
    result, code = work(manifests(folder), Crew(), Policy(), live=False)
    assert (code, set(result["status"])) == (0, {"done"})


def same(runs: Path, undisturbed: Path) -> None:
    """Assert that two sweeps have bit-identical curves and equal records, and that nothing is left over in their folders."""
    assert collect(runs).equals(collect(undisturbed))
    assert records(runs) == records(undisturbed)
    assert set(runs_table(runs)["status"]) == {"done"}
    assert not list(runs.rglob("*.partial"))


def records(runs: Path) -> dict[str, dict[str, Any]]:
    """Hash → record without its circumstances."""
    found = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/*/record.json")}
    return {
        name: {key: value for key, value in record.items() if key not in CIRCUMSTANCES}
        for name, record in found.items()
    }


class Witness:
    """Sees each record once it is there, and that it is never written again."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.seen: dict[str, tuple[int, int]] = {}

    def look(self) -> int:
        """How many records there are."""
        for path in self.runs.glob("*/*/record.json"):
            status = path.stat()
            first = self.seen.setdefault(str(path), (status.st_ino, status.st_mtime_ns))
            assert first == (status.st_ino, status.st_mtime_ns), f"{path} was written twice"
        return len(self.seen)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 180) -> None:
    """Wait until `condition` holds while `process` lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}: {process.stderr and process.stderr.read()}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> Iterator[int]:
    """All processes below `pid`, nearest first."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def losses(runs: Path) -> pl.DataFrame:
    """The curves of a sweep, for messages."""
    return collect(runs).select("hash", "step", "loss")
