"""Disks that are full or cannot be written: one clear error, nothing corrupted, and on it goes when there is space."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_tools import QUIET, ended, fill, finish_here, same, train

from featscale.runs.table import runs_table

pytestmark = pytest.mark.slow

SWEEP = [
    *QUIET,
    "name=disk",
    "model.N=64",
    "data.M=300",
    "data.B=8",
    "optimizer.eta0=0.1",
    "steps=2000",
    "seed=range(0,6)",
]
# A group's checkpoints, 6 x 60 kB, come at every pause.
SAVING = ["trainer.checkpoint_seconds=0"]


def mount(*arguments: str) -> str:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        refused = mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder))
    except FileNotFoundError:
        refused = "there is no mount command"
    if refused:
        pytest.skip(f"no tmpfs can be mounted here: {refused}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def one_error(error: str) -> str:
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    return line


def sound(runs: Path) -> None:
    """What is there can be read: nothing half a file, nothing taken for finished that is not."""
    table = runs_table(runs)
    assert "unreadable" not in set(table["status"])
    assert not list(runs.rglob("*.partial"))


def test_a_full_disk_is_one_error_and_resumes_when_there_is_space(disk: Path, tmp_path: Path) -> None:
    runs, undisturbed = disk / "runs", tmp_path / "undisturbed"
    code, error = ended(train(runs, "-m", *SWEEP, *SAVING))
    assert code == 1, error
    line = one_error(error)
    assert "No space left on device" in line
    assert line.endswith("the same command goes on when there is space")
    sound(runs)
    assert mount("-o", "remount,size=64m", str(disk)) == ""
    code, error = ended(train(runs, "-m", *SWEEP))
    assert code == 0, error
    finish_here(fill(undisturbed, *SWEEP).folder)
    same(runs, undisturbed)


def test_a_folder_that_becomes_read_only_is_one_error_and_resumes(disk: Path, tmp_path: Path) -> None:
    runs, undisturbed = disk / "runs", tmp_path / "undisturbed"
    fill(runs, *SWEEP)
    assert mount("-o", "remount,ro", str(disk)) == ""
    code, error = ended(train(runs, "-m", *SWEEP))
    assert code == 2, error
    assert "a folder that can be written (Read-only file system)" in one_error(error)
    assert mount("-o", "remount,rw,size=64m", str(disk)) == ""
    code, error = ended(train(runs, "-m", *SWEEP))
    assert code == 0, error
    finish_here(fill(undisturbed, *SWEEP).folder)
    same(runs, undisturbed)


def test_files_that_may_not_grow_are_one_error_and_nothing_is_lost(tmp_path: Path) -> None:
    """A quota on the size of a file, which needs no rights to set: checkpoints of 60 kB do not fit into 20."""
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    code, error = ended(train(runs, "-m", *SWEEP, *SAVING, preexec_fn=limit))
    assert code == 1, error
    assert "File too large" in one_error(error)
    sound(runs)
    assert not list(runs.rglob("checkpoint*.pt"))
    code, error = ended(train(runs, "-m", *SWEEP))
    assert code == 0, error
    finish_here(fill(undisturbed, *SWEEP).folder)
    same(runs, undisturbed)
