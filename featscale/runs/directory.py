"""A run's directory: what is in it, who may write to it, and what state it is in."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml  # type: ignore[import-untyped]

from featscale.errors import BadInput, require
from featscale.runs.identity import canonical, config_hash
from featscale.runs.record import Record, read_record

log = logging.getLogger(__name__)

CONFIG, SCIENCE, CURVE, CHECKPOINT, RECORD = (
    "config.yaml",
    "science.json",
    "curve.parquet",
    "checkpoint.pt",
    "record.json",
)
LOCK, HEARTBEAT = "lock", "heartbeat"
# A process on another machine that has given no sign for so long is taken for dead, in seconds.
FRESH = 120.0
CURVE_COLUMNS = {"step": pl.Int64, "t": pl.Float64, "seed": pl.Int64, "loss": pl.Float64}

Status = Literal["done", "diverged", "failed", "running", "interrupted", "missing"]


class RunBusy(OSError):
    """Another process trains this run; it says which."""

    def __init__(self, path: Path, who: str) -> None:
        super().__init__(errno.EBUSY, f"this run is being trained by {who}", str(path))


class Decision(StrEnum):
    """What to do with a run that is asked for."""

    START = "start"
    RESUME = "resume"
    RETRY = "retry"
    FINISHED = "finished"
    FAILED = "failed"
    BUSY = "busy"

    @property
    def trains(self) -> bool:
        """Whether it is to be trained now."""
        return self in (Decision.START, Decision.RESUME, Decision.RETRY)


@dataclass(frozen=True)
class Pulse:
    """The last sign of life of a run without a record.

    alive, whether a process holds it now. age, seconds since the last heartbeat, None if there was none. beat, what the heartbeat says:
    pid, host, step, steps, t, time, since.
    """

    alive: bool
    age: float | None
    beat: Mapping[str, Any]

    @property
    def seconds_left(self) -> float | None:
        """Steps to go at the mean rate since the first heartbeat; None while there is no rate."""
        try:
            time0, step0 = self.beat["since"]
            rate = (self.beat["step"] - step0) / (self.beat["time"] - time0)
            return (self.beat["steps"] - self.beat["step"]) / rate if rate > 0 else None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None


@dataclass(frozen=True)
class RunDirectory:
    """The folder root/name/hash of one run, of which :func:`featscale.runs.identity.run_path` makes the path.

    In it: config.yaml, all that was resolved; science.json, what the hash is of; curve.parquet; checkpoint.pt; lock and heartbeat of the
    process that trains it; and last record.json, which makes the run finished. Every file is replaced as a whole, so that a kill at any
    moment leaves the old one or the new one.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint lies, or will."""
        return self.path / CHECKPOINT

    def write_config(self, config: Mapping[str, Any], science: Mapping[str, Any]) -> None:
        """Write the resolved configuration and the part of it that names the run.

        Raises: BadInput if the folder is not named by the hash of `science`, or holds another science already.
        """
        expected = config_hash(science)
        require(self.path.name == expected, "hash", self.path.name, f"{expected}, the hash of this configuration")
        names = canonical(science)
        if (self.path / SCIENCE).exists():
            there = read_science(self.path / SCIENCE)
            require(
                there == names, "hash", self.path, "a folder of this very configuration; science.json there differs"
            )
        text = yaml.dump(_plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / CONFIG, text.encode())
        write_atomically(self.path / SCIENCE, (json.dumps(names, indent=1) + "\n").encode())

    def write_curve(self, rows: pl.DataFrame) -> None:
        """Write the curve: columns step, t, seed, loss and any more of numbers; a frame without rows may lack them."""
        if rows.is_empty():
            rows = pl.DataFrame(schema=CURVE_COLUMNS | dict(rows.schema))
        lacking = ", ".join(column for column in CURVE_COLUMNS if column not in rows.columns)
        require(not lacking, "curve", f"no column {lacking}", f"columns {', '.join(CURVE_COLUMNS)}")
        file = io.BytesIO()
        rows.with_columns(pl.col(name).cast(kind) for name, kind in CURVE_COLUMNS.items()).write_parquet(file)
        write_atomically(self.path / CURVE, file.getvalue())

    def read_curve(self) -> pl.DataFrame:
        """The curve, as it was written.

        Raises: BadInput that names the file and what to do if there is none or it cannot be read.
        """
        path = self.path / CURVE
        try:
            return pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            why = " ".join(str(error).split())[:80]
            raise BadInput(
                "curve", path, f"a readable curve ({why}); delete the folder to train the run again"
            ) from None

    def write_record(self, record: Record) -> None:
        """Write the record, which makes the run finished; do it last."""
        require(record.hash == self.path.name, "hash", record.hash, f"{self.path.name}, the name of the folder")
        write_atomically(self.path / RECORD, record.to_json().encode())
        (self.path / HEARTBEAT).unlink(missing_ok=True)

    def read_record(self) -> Record:
        """The record. Raises: BadInput that names the file and what to do if there is none or it cannot be read."""
        return read_record(self.path / RECORD)

    def restart(self) -> None:
        """Forget an earlier attempt: its checkpoint, its curve and, last, its record."""
        for name in (CHECKPOINT, CURVE, RECORD):
            (self.path / name).unlink(missing_ok=True)

    def status(self) -> Status:
        """What the files and the living processes say.

        done, diverged or failed: there is a record, which says so. running: somebody holds the claim. interrupted: configured, not
        finished, and nobody at it. missing: none of these.
        Raises: BadInput for a record that cannot be read.
        """
        if (self.path / RECORD).exists():
            return self.read_record().status
        return unfinished(self.path, pulse(self.path))


class Claim:
    """The right to train a run, from :func:`claim`; shows others that its holder is alive and how far it is."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.since: tuple[float, int] | None = None
        self.warned = False

    def beat(self, step: int, steps: int, t: float) -> None:
        """Say that `step` of `steps` updates are made, at flow time `t`. A heartbeat that cannot be written is warned of once."""
        now = time.time()
        self.since = self.since or (now, step)
        sign = {"pid": os.getpid(), "host": platform.node(), "step": step, "steps": steps, "t": t, "time": now}
        try:
            text = json.dumps(sign | {"since": self.since})
            write_atomically(self.directory.path / HEARTBEAT, text.encode(), durable=False)
        except OSError as error:
            if not self.warned:
                log.warning("no heartbeat: %s: %s; training goes on", self.directory.path, error.strerror)
            self.warned = True


@contextmanager
def claim(directory: RunDirectory) -> Iterator[Claim]:
    """Hold a run, so that no two processes train it at once; makes the folder.

    The lock is the kernel's and ends with the process, however that ends. Where machines share the folder but not its locks, a heartbeat
    younger than 120 s from another machine counts as one.
    Raises: RunBusy if somebody else holds it. OSError where the folder cannot be written or its file system has no locks.
    """
    directory.path.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(lock, directory.path)
        owner, age = _owner(lock), _age(directory.path)
        if owner and owner.get("host") != platform.node() and age < FRESH:
            raise RunBusy(
                directory.path, f"{_who(owner)}, {age:.0f} s ago; if it was killed, ask again in {FRESH - age:.0f} s"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": platform.node(), "time": time.time()}).encode(), 0)
        try:
            yield Claim(directory)
        finally:
            # An empty lock tells other machines that its holder left in order.
            os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def should_run(directory: RunDirectory, retry_failed: bool = False, claimed: bool = False) -> Decision:
    """Whether a run that is asked for is to be trained.

    Arguments: retry_failed, train a failed run again, from the start. claimed, that the caller holds the claim, so that nobody else is at
    it; ask once more inside the claim, for another process may have finished the run in between.
    Returns: START, RESUME (there is a checkpoint), RETRY (call :meth:`RunDirectory.restart`), or why not: FINISHED, FAILED, BUSY.
    Raises: BadInput for a record that cannot be read.
    """
    if (directory.path / RECORD).exists():
        if directory.read_record().status != "failed":
            return Decision.FINISHED
        return Decision.RETRY if retry_failed else Decision.FAILED
    if not claimed and pulse(directory.path).alive:
        return Decision.BUSY
    return Decision.RESUME if directory.checkpoint.exists() else Decision.START


def pulse(path: Path) -> Pulse:
    """Whether a process trains the run in `path` now, and what it said last. Asking disturbs nobody."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY)
    except OSError:
        return Pulse(False, None, {})
    try:
        owner, age = _owner(lock), _age(path)
        elsewhere = bool(owner) and owner.get("host") != platform.node() and age < FRESH
        alive = elsewhere or _is_held(lock)
    finally:
        os.close(lock)
    try:
        text = (path / HEARTBEAT).read_bytes()
    except OSError:
        return Pulse(alive, None, {})
    return Pulse(alive, age, _object(text))


def unfinished(path: Path, signs: Pulse) -> Status:
    """The status of a run without a record."""
    if signs.alive:
        return "running"
    return "interrupted" if (path / CONFIG).exists() else "missing"


def read_science(path: Path) -> Mapping[str, Any]:
    """What the hash is of, from science.json. Raises: BadInput that names the file if it cannot be read."""
    try:
        science = _object(path.read_bytes())
    except OSError as error:
        raise BadInput("science", path, f"a readable file ({error.strerror})") from None
    require(bool(science), "science", path, "one JSON object; delete the folder to train the run again")
    return science


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace the file `path` by `data`, as a whole or not at all, through a hidden file beside it.

    Arguments: durable, whether the data must be on the disk before this returns.
    Raises: OSError, with nothing left behind and the old file as it was.
    Cost: durable, two fsyncs.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems sync no folders; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


def _acquire(lock: int, path: Path) -> None:
    """Take the lock; somebody who only looks holds it for microseconds, so ask a few times."""
    for pause in (0.01, 0.03, 0.1, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if pause is None:
                raise RunBusy(path, _who(_owner(lock))) from None
            time.sleep(pause)
        except OSError as error:
            raise OSError(error.errno, f"no file locks here ({error.strerror})", str(path)) from None


def _is_held(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # A file system without locks: heartbeats alone tell.
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _owner(lock: int) -> Mapping[str, Any]:
    return _object(os.pread(lock, 4096, 0))


def _who(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown machine')}"


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system: a heartbeat, or the claim itself."""
    signs = [0.0]
    for name in (HEARTBEAT, LOCK):
        with suppress(OSError):
            signs.append((path / name).stat().st_mtime)
    return max(time.time() - max(signs), 0.0)


def _object(text: bytes) -> Mapping[str, Any]:
    """The JSON object in `text`; an empty one if it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class _Dumper(yaml.SafeDumper):
    """Quotes texts that another YAML reader would take for numbers, such as 1e-3."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _represent_text)


def _plain(value: Any) -> Any:
    """`value` of types that YAML has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
