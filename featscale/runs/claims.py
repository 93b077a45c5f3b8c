"""Who trains a run: the lock that only one process holds, and the heartbeat that shows the others how far it is."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from featscale.runs.files import json_object, sweep_up, write_atomically

log = logging.getLogger(__name__)

LOCK, HEARTBEAT = "lock", "heartbeat"
# A process on another machine that has given no sign for so long is taken for dead, in seconds.
FRESH = 120.0


class Located(Protocol):
    """A run's directory: anything with a path."""

    @property
    def path(self) -> Path:
        """Its folder."""


class RunBusy(OSError):
    """Another process trains this run; it says which."""

    def __init__(self, path: Path, who: str) -> None:
        super().__init__(errno.EBUSY, f"this run is being trained by {who}", str(path))


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
    def seconds(self) -> float | None:
        """From the first heartbeat of this attempt to the last; None without any."""
        try:
            return float(self.beat["time"] - self.beat["since"][0])
        except (KeyError, TypeError, ValueError, IndexError):
            return None

    @property
    def seconds_left(self) -> float | None:
        """Steps to go at the mean rate since the first heartbeat; None while there is no rate."""
        try:
            time0, step0 = self.beat["since"]
            rate = (self.beat["step"] - step0) / (self.beat["time"] - time0)
            return (self.beat["steps"] - self.beat["step"]) / rate if rate > 0 else None
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None


class Claim:
    """The right to train a run, from :func:`claim`; shows others that its holder is alive and how far it is.

    crashes, how many processes in a row died with this run in their hands and nothing saved since.
    """

    def __init__(self, directory: Located, lock: int, crashes: int) -> None:
        self.directory, self.crashes = directory, crashes
        self.since: tuple[float, int] | None = None
        self.warned = False
        self._lock = lock
        self._sign()

    def progressed(self) -> None:
        """Something was saved: the earlier deaths of this run's processes count no more."""
        if self.crashes:
            self.crashes = 0
            self._sign()

    def _sign(self) -> None:
        owner = {"pid": os.getpid(), "host": platform.node(), "time": time.time(), "crashes": self.crashes}
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps(owner).encode(), 0)

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
def claim(directory: Located) -> Iterator[Claim]:
    """Hold a run, so that no two processes train it at once; makes the folder.

    The lock is the kernel's and ends with the process, however that ends. Where machines share the folder but not its locks, a heartbeat
    younger than 120 s from another machine counts as one. What a killed holder left half written is removed.
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
        crashes = 0
        if owner:
            # It did not leave in order.
            earlier = owner.get("crashes", 0)
            crashes = 1 + (earlier if isinstance(earlier, int) else 0)
            sweep_up(directory.path)
        held = Claim(directory, lock, crashes)
        try:
            yield held
        finally:
            # An empty lock tells other machines that its holder left in order.
            os.ftruncate(lock, 0)
    finally:
        os.close(lock)


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
    return Pulse(alive, age, json_object(text))


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
    return json_object(os.pread(lock, 4096, 0))


def _who(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown machine')}"


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the clock of the file system: a heartbeat, or the claim itself."""
    signs = [0.0]
    for name in (HEARTBEAT, LOCK):
        with suppress(OSError):
            signs.append((path / name).stat().st_mtime)
    return max(time.time() - max(signs), 0.0)
