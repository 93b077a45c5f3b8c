"""A run's folder: atomic files, one claimant at a time, and statuses that survive a kill at the worst moment."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from featscale.errors import BadInput
from featscale.runs import claims as module
from featscale.runs.claims import RunBusy, claim, pulse
from featscale.runs.directory import Decision, RunDirectory, should_run
from featscale.runs.files import write_atomically
from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import Outcome, Record

SCIENCE = {"model": {"N": 64}, "data": {"B": math.inf}, "seed": 0}
CONFIG = {**SCIENCE, "trainer": {"chunk": 100}, "paths": {"runs": Path("runs")}}
ROWS = pl.DataFrame(
    {"step": [0, 1, 0, 1], "t": [0.0, 0.5, 0.0, 0.5], "seed": [0, 0, 1, 1], "loss": [1.0, 0.5, 1.0, 0.25]}
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """The folder of a run that nobody has asked for yet."""
    return RunDirectory(run_path(tmp_path / "runs", "width", config_hash(SCIENCE)))


def record_of(run: RunDirectory, status: Outcome = "done") -> Record:
    return Record(
        status=status,
        name="width",
        hash=run.path.name,
        science=SCIENCE,
        seeds=(0, 1),
        step=1,
        steps=1,
        wall_seconds=1.0,
        started="2025-01-01T00:00:00+00:00",
        ended="2025-01-01T00:00:01+00:00",
    )


def finish(run: RunDirectory, status: Outcome = "done") -> None:
    with claim(run) as held:
        run.write_config(CONFIG, SCIENCE)
        held.beat(1, 1, 0.5)
        run.write_curve(ROWS)
        run.checkpoint.touch()
        run.write_record(record_of(run, status))


@contextmanager
def elsewhere(run: RunDirectory, age: float) -> Iterator[None]:
    """As if a process on another machine had claimed the run, and given its last sign `age` seconds ago."""
    run.path.mkdir(parents=True)
    for name in ("lock", "heartbeat"):
        (run.path / name).write_text(json.dumps({"pid": 7, "host": "another-machine", "step": 3}))
        os.utime(run.path / name, (time.time() - age,) * 2)
    yield


# Atomic files


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new and longer", b""):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    broken: str, durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, broken, refuse)
    if broken == "fsync" and not durable:
        write_atomically(path, b"new", durable)
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(OSError, match="Read-only"):
            write_atomically(path, b"new", durable)
        assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_a_file_system_that_syncs_no_folders_is_forgiven(
    code: int, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def no_folders(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    if raised:
        with pytest.raises(OSError, match=os.strerror(code)):
            write_atomically(tmp_path / "file", b"new")
    else:
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_file_where_the_folder_should_be_is_an_error_of_the_system(run: RunDirectory) -> None:
    run.path.parent.parent.mkdir()
    run.path.parent.write_text("a file")
    with pytest.raises(OSError, match="Not a directory") as caught, claim(run):
        pytest.fail("claimed")
    assert not isinstance(caught.value, RunBusy)
    assert run.status() == "missing"


# Configuration and curve


def test_the_configuration_is_read_back_as_it_was_by_yaml_and_omegaconf(run: RunDirectory) -> None:
    values = {
        "eta0": 1e-7,
        "B": math.inf,
        "text": "1e-3",
        "word": "inf",
        "yes": "yes",
        "none": None,
        "N": np.int64(3),
        "big": 1e22,
    }
    config = {**CONFIG, "values": {**values, "widths": (1, 2), "empty": {}, "greek": "γ"}}
    with claim(run):
        run.write_config(config, SCIENCE)
    text = (run.path / "config.yaml").read_text(encoding="utf-8")
    expected = {**values, "N": 3, "widths": [1, 2], "empty": {}, "greek": "γ"}
    assert yaml.safe_load(text)["values"] == expected
    read = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(read, dict)
    assert read["values"] == expected
    assert read["paths"] == {"runs": "runs"}
    assert list(read) == list(config)


def test_the_folder_must_be_named_by_the_science(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    with pytest.raises(BadInput, match=r"^hash: "):
        run.write_config(CONFIG, {**SCIENCE, "seed": 1})
    run.write_config(CONFIG, SCIENCE)
    run.write_config({**CONFIG, "trainer": {"chunk": 7}}, {**SCIENCE, "seed": 0.0})
    assert "chunk: 7" in (run.path / "config.yaml").read_text()
    (run.path / "science.json").write_text('{"seed": 3}')
    with pytest.raises(BadInput, match=r"science\.json there differs"):
        run.write_config(CONFIG, SCIENCE)


def test_a_curve_comes_back_as_it_was_written(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    rows = ROWS.with_columns(pl.col("step").cast(pl.Int32), K=pl.lit(2.0))
    run.write_curve(rows)
    back = run.read_curve()
    assert back.equals(rows.with_columns(pl.col("step").cast(pl.Int64)))
    assert [back.schema[name] for name in ("step", "t", "seed", "loss")] == [pl.Int64, pl.Float64, pl.Int64, pl.Float64]


def test_a_curve_without_rows_has_its_columns(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    run.write_curve(pl.DataFrame([]))
    assert run.read_curve().columns == ["step", "t", "seed", "loss"]
    assert run.read_curve().is_empty()


def test_a_curve_that_lacks_a_column_is_refused(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    with pytest.raises(BadInput, match="no column seed"):
        run.write_curve(ROWS.drop("seed"))
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not really"])
def test_a_curve_that_cannot_be_read_is_one_line(content: bytes | None, run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    if content is not None:
        (run.path / "curve.parquet").write_bytes(content)
    with pytest.raises(BadInput, match=r"^curve: .*delete the folder to train the run again$"):
        run.read_curve()


# Status


def test_the_status_follows_the_life_of_a_run(run: RunDirectory) -> None:
    assert (run.status(), should_run(run)) == ("missing", Decision.START)
    with claim(run) as held:
        assert (run.status(), should_run(run), should_run(run, claimed=True)) == ("running", "busy", "start")
        run.write_config(CONFIG, SCIENCE)
        held.beat(1, 10, 0.5)
        assert run.status() == "running"
        assert pulse(run.path).beat["step"] == 1
    assert (run.status(), should_run(run)) == ("interrupted", Decision.START)
    run.checkpoint.touch()
    assert should_run(run) == Decision.RESUME
    finish(run)
    assert (run.status(), should_run(run)) == ("done", Decision.FINISHED)
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "science.json", "curve.parquet", "checkpoint.pt", "record.json", "lock"
    }  # fmt: skip


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_a_finished_run_is_skipped_even_with_retry(status: Outcome, run: RunDirectory) -> None:
    finish(run, status)
    assert run.status() == status
    for retry in (False, True):
        assert not should_run(run, retry_failed=retry).trains


def test_a_failed_run_is_trained_again_only_when_asked(run: RunDirectory) -> None:
    finish(run, "failed")
    assert should_run(run) == Decision.FAILED
    assert not should_run(run).trains
    assert should_run(run, retry_failed=True) == Decision.RETRY
    run.restart()
    assert (run.status(), should_run(run)) == ("interrupted", Decision.START)
    assert not run.checkpoint.exists()
    with pytest.raises(BadInput):
        run.read_curve()


def test_a_record_that_cannot_be_read_is_said_and_not_trained_over(run: RunDirectory) -> None:
    finish(run)
    path = run.path / "record.json"
    path.write_bytes(path.read_bytes()[:50])
    for question in (run.status, lambda: should_run(run), lambda: should_run(run, claimed=True)):
        with pytest.raises(BadInput, match="delete the file"):
            question()


def test_the_record_of_another_run_is_refused(run: RunDirectory) -> None:
    run.path.mkdir(parents=True)
    other = RunDirectory(run.path.with_name("0" * 12))
    with pytest.raises(BadInput, match=r"^hash: "):
        run.write_record(record_of(other))
    assert run.status() == "missing"


# Claims


def test_the_second_claimant_is_told_who_holds_the_run(run: RunDirectory) -> None:
    with claim(run):
        with pytest.raises(RunBusy) as caught, claim(run):
            pytest.fail("claimed twice")
        assert f"process {os.getpid()} on " in str(caught.value.strerror)
        assert caught.value.filename == str(run.path)
        assert run.status() == "running"
    with claim(run):
        assert run.status() == "running"


def test_a_claim_ends_with_an_exception(run: RunDirectory) -> None:
    with pytest.raises(ZeroDivisionError), claim(run):
        raise ZeroDivisionError
    assert not pulse(run.path).alive
    with claim(run):
        assert pulse(run.path).alive


def test_who_only_looks_does_not_stop_a_claim(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = module.fcntl
    run.path.mkdir(parents=True)
    looking = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    pauses = []

    def look_away(seconds: float) -> None:
        pauses.append(seconds)
        fcntl.flock(looking, fcntl.LOCK_UN)

    monkeypatch.setattr(module.time, "sleep", look_away)
    with claim(run):
        assert len(pauses) == 1
    os.close(looking)


def test_a_fresh_heartbeat_of_another_machine_counts(run: RunDirectory) -> None:
    with elsewhere(run, age=5):
        assert run.status() == "running"
        assert should_run(run) == Decision.BUSY
        with pytest.raises(RunBusy, match="process 7 on another-machine"), claim(run):
            pytest.fail("claimed")


def test_an_old_heartbeat_of_another_machine_does_not(run: RunDirectory) -> None:
    with elsewhere(run, age=module.FRESH + 5):
        (run.path / "config.yaml").touch()
        assert run.status() == "interrupted"
        assert pulse(run.path).age == pytest.approx(module.FRESH + 5, abs=2)
        with claim(run):
            assert run.status() == "running"


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_machine_that_left_in_order_can_be_followed_at_once(
    error: type[Exception] | None, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suppress(ZeroDivisionError), claim(run) as held:
        held.beat(1, 10, 0.5)
        if error:
            raise error
    monkeypatch.setattr(module.platform, "node", lambda: "another-machine")
    assert not pulse(run.path).alive
    with claim(run):
        assert pulse(run.path).alive


def test_a_file_system_without_locks_is_named(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no file locks here") as caught, claim(run):
        pytest.fail("claimed")
    assert caught.value.filename == str(run.path)
    assert not pulse(run.path).alive


def test_a_heartbeat_that_cannot_be_written_is_warned_of_once(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with claim(run) as held, caplog.at_level(logging.WARNING):
        held.beat(1, 10, 0.5)
        assert caplog.messages == []
        monkeypatch.setattr(module, "write_atomically", refuse)
        held.beat(2, 10, 1.0)
        held.beat(3, 10, 1.5)
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]


def test_the_time_left_follows_from_the_mean_speed_since_the_claim(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([1000.0, 1010.0])
    with claim(run) as held:
        monkeypatch.setattr(module.time, "time", lambda: next(clock))
        held.beat(100, 1000, 1.0)
        held.beat(300, 1000, 3.0)
        monkeypatch.undo()
        signs = pulse(run.path)
    assert signs.seconds_left == pytest.approx(35.0)
    assert signs.beat["t"] == 3.0
    assert signs.beat["pid"] == os.getpid()


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"step": 3}', '{"step": 3, "steps": 9, "time": 5, "since": [5, 3]}', '{"since": "x"}']
)
def test_a_heartbeat_without_a_speed_has_no_time_left(text: str, run: RunDirectory) -> None:
    with claim(run):
        (run.path / "heartbeat").write_text(text)
        assert pulse(run.path).alive
        assert pulse(run.path).seconds_left is None


# A kill in the middle

VICTIM = """
    import os, signal, sys
    from pathlib import Path
    from featscale.runs.claims import claim
    from featscale.runs.directory import RunDirectory
    from test_directory import CONFIG, ROWS, SCIENCE, record_of

    run = RunDirectory(Path(sys.argv[1]))
    with claim(run) as held:
        run.write_config(CONFIG, SCIENCE)
        held.beat(1, 1, 0.5)
        run.write_curve(ROWS)
        print("ready", flush=True)
        sys.stdin.readline()
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        run.write_record(record_of(run))
"""


def test_a_process_killed_while_it_writes_the_record_leaves_an_interrupted_run(run: RunDirectory) -> None:
    command = [sys.executable, "-c", textwrap.dedent(VICTIM), str(run.path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        assert run.status() == "running"
        with pytest.raises(RunBusy, match=f"process {victim.pid} on "), claim(run):
            pytest.fail("claimed twice")
        victim.communicate("go\n", timeout=60)
    assert victim.returncode == -signal.SIGKILL
    assert not (run.path / "record.json").exists()
    assert any(path.name.endswith(".partial") for path in run.path.iterdir())
    assert run.status() == "interrupted"
    assert should_run(run).trains
    assert run.read_curve().equals(ROWS)
    finish(run)
    assert run.status() == "done"
