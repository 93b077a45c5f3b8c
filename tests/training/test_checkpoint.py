"""Checkpoints: what comes back, the pair that is kept, and what damage does."""

from __future__ import annotations

import errno
import io
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import job_of, planned

from featscale.runs import files
from featscale.training import checkpoint
from featscale.training.checkpoint import CannotSave
from featscale.training.group import ready
from featscale.training.march import March
from featscale.training.run import Job


@pytest.fixture
def claims() -> Any:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def job(tmp_path: Path, claims: ExitStack) -> Job:
    made = job_of(tmp_path, planned(), claims)
    ready(made)
    return made


def saved_twice(job: Job) -> None:
    for stop in (40, 90):
        March([job.module], 100).to(stop)
        job.save()


def again(job: Job, tmp_path: Path) -> Job:
    """The same run in another process: a new module from the same folder."""
    made = Job(
        job.directory, job.request, job.held, job_of(tmp_path / "other", planned(), ExitStack()).module, job.data
    )
    ready(made)
    return made


def test_the_state_comes_back_with_the_optimiser_and_the_rows(job: Job, tmp_path: Path) -> None:
    saved_twice(job)
    back = again(job, tmp_path)
    assert back.module.step == 90
    assert back.module.rows == job.module.rows
    for module in (job.module, back.module):
        March([module], 100).to(200)
    assert back.module.x.tolist() == job.module.x.tolist()
    assert back.module.curve().equals(job.module.curve())
    assert back.wall_seconds >= job.wall_seconds * 0.5 > 0


def test_seconds_of_earlier_attempts_count(job: Job, tmp_path: Path) -> None:
    job.clock -= 1000
    saved_twice(job)
    assert 1000 <= again(job, tmp_path).wall_seconds < 1100


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(
    cut: float, job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved_twice(job)
    data = job.directory.checkpoint.read_bytes()
    job.directory.checkpoint.write_bytes(data[: int(cut * len(data))])
    assert again(job, tmp_path).module.step == 40
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(job.directory.checkpoint) in record.getMessage()
    assert "going on from the one before" in record.getMessage()


def test_one_flipped_bit_is_seen(job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the numbers of a tensor, where nothing but the checksum can tell."""
    saved_twice(job)
    data = bytearray(job.directory.checkpoint.read_bytes())
    at = data.find(job.module.x.detach().numpy().tobytes())
    assert at > 0
    data[at] ^= 1
    job.directory.checkpoint.write_bytes(data)
    assert again(job, tmp_path).module.step == 40
    assert "damaged" in caplog.text


def test_both_damaged_starts_from_zero_and_says_so(job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_twice(job)
    for path in (job.directory.checkpoint, checkpoint.previous(job.directory.checkpoint)):
        path.write_bytes(b"PK nothing")
    assert again(job, tmp_path).module.step == 0
    assert len(caplog.records) == 2
    assert "starting from step 0" in caplog.text


def test_killed_between_the_two_renames_goes_on_from_the_one_before(job: Job, tmp_path: Path) -> None:
    saved_twice(job)
    job.directory.checkpoint.unlink()
    assert job.directory.has_checkpoint
    assert again(job, tmp_path).module.step == 40


def test_a_sound_checkpoint_warns_of_nothing(job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_twice(job)
    again(job, tmp_path)
    assert caplog.records == []


def test_pickled_code_is_not_executed(job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved_twice(job)
    trace = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trace),)

    torch.save({"clock": Hostile(), "state_dict": {}}, job.directory.checkpoint)
    assert again(job, tmp_path).module.step == 40
    assert not trace.exists()
    assert "damaged" in caplog.text


def test_a_full_disk_leaves_both_checkpoints(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_twice(job)
    before = {path.name: path.read_bytes() for path in job.directory.path.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    March([job.module], 100).to(120)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(CannotSave, match="No space left"):
            job.save()
    assert {path.name: path.read_bytes() for path in job.directory.path.iterdir()} == before
    job.save()
    assert again(job, tmp_path).module.step == 120


def test_a_view_does_not_bring_the_whole(job: Job) -> None:
    big = torch.zeros(10**5, 3, dtype=torch.float64)
    with torch.no_grad():
        job.module.x.data = big[7]
    job.save()
    assert job.directory.checkpoint.stat().st_size < 10**4
    file = io.BytesIO()
    torch.save(big[7], file)
    assert len(file.getvalue()) > 10**6, "torch saves the whole of a view; if no more, the copy is needless"
