"""A sweep as a folder: the manifest that lists its runs, each with all that is needed to train it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from featscale.errors import BadInput, require
from featscale.runs.directory import RunDirectory
from featscale.runs.files import write_atomically
from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import decoded, encoded

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"
LOCK = ".manifest.lock"
ENTRIES = {"hash": str, "config": dict, "science": dict, "overrides": list}


@dataclass(frozen=True)
class Planned:
    """A run that is asked for.

    config, the whole resolved configuration as plain containers. science, the part of it that names the run. overrides, as typed.
    """

    config: Mapping[str, Any]
    science: Mapping[str, Any]
    overrides: tuple[str, ...] = ()

    @cached_property
    def hash(self) -> str:
        """The name of the run's folder."""
        return config_hash(self.science)

    def to_json(self) -> str:
        """One line, without its end; infinities are texts, since JSON has none."""
        entries = {"hash": self.hash, "overrides": self.overrides, "science": self.science, "config": self.config}
        return json.dumps(encoded(entries), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The run in a line of :meth:`to_json`. Raises: BadInput that says what is wrong with the line."""
        try:
            entries = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput("manifest", f"not JSON ({error})", "one JSON object a line") from None
        require(isinstance(entries, dict), "manifest", type(entries).__name__, "one JSON object a line")
        for name, kind in ENTRIES.items():
            require(isinstance(entries.get(name), kind), f"manifest.{name}", entries.get(name), f"a {kind.__name__}")
        run = cls(decoded(entries["config"]), decoded(entries["science"]), tuple(entries["overrides"]))
        require(run.hash == entries["hash"], "manifest.hash", entries["hash"], f"{run.hash}, the hash of its science")
        return run


@dataclass(frozen=True)
class Manifest:
    """The list of the runs of one sweep, the file manifest.jsonl in the folder of its runs; one line a run.

    folder, runs/<name>. The file is replaced as a whole and only by one process at a time; what is in it already is never lost and never
    doubled, so that any number of commands may add to it at any time, and the same command twice adds nothing.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """Where the list lies, or will."""
        return self.folder / MANIFEST

    def directory(self, run: Planned) -> RunDirectory:
        """The directory of one of its runs. Raises: BadInput for a name that is no folder name."""
        return RunDirectory(run_path(self.folder.parent, self.folder.name, run.hash))

    def add(self, runs: Iterable[Planned]) -> int:
        """Add those of `runs` that are not in it, and let the others be done in the way asked for last (device, threads, …).

        Lines that cannot be read, and whose runs are therefore unknown, are left out with a warning.
        Returns: how many are new.
        Raises: OSError where the folder cannot be written; the file is then as it was.
        """
        return self._rewrite({run.hash: run.to_json() for run in runs})

    def remove(self, hashes: Collection[str]) -> None:
        """Take runs off the list; their folders, if there are any, stay."""
        self._rewrite({}, hashes)

    def _rewrite(self, changed: Mapping[str, str], gone: Collection[str] = ()) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            before = self.path.read_text("utf-8") if self.path.exists() else ""
            known: dict[str, str] = {}
            for number, line in enumerate(before.splitlines(), start=1):
                try:
                    known[Planned.from_json(line).hash] = line
                except BadInput as error:
                    log.warning("%s, line %d, is left out: %s", self.path, number, error)
            there = len(known)
            known.update(changed)
            after = "".join(f"{line}\n" for name, line in known.items() if name not in gone)
            if after != before:
                write_atomically(self.path, after.encode())
            return len(known) - there

    def read(self) -> list[Planned]:
        """Its runs, in the order in which they were added.

        Raises: BadInput that names the file and the line if there is none or a line cannot be read.
        Cost: 0.1 ms a run.
        """
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no UTF-8"
            raise BadInput("manifest", self.path, f"a readable manifest of a sweep ({reason})") from None
        runs = []
        for number, line in enumerate(lines, start=1):
            try:
                runs.append(Planned.from_json(line))
            except BadInput as error:
                advice = f"whole lines; line {number}: {error}; the same `train.py -m …` again mends it"
                raise BadInput("manifest", self.path, advice) from None
        return runs

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def manifests(folder: Path) -> list[Manifest]:
    """The manifests in `folder` or in the folders in it, sorted by name.

    Raises: BadInput if there is none.
    """
    found = [folder] if (folder / MANIFEST).exists() else sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    require(bool(found), "DIR", folder, f"a folder with a {MANIFEST}, or one of such folders; `train.py -m …` makes it")
    return [Manifest(path) for path in found]


def plan(root: str | Path, runs: Iterable[Planned]) -> list[Manifest]:
    """Put each run into the manifest root/<name>/manifest.jsonl of its own name; returns these manifests."""
    by_name: dict[str, list[Planned]] = {}
    for run in runs:
        # Asking again is a matter of the command, not of the sweep.
        config = {**run.config, "retry_failed": False}
        by_name.setdefault(run.config["name"], []).append(replace(run, config=config))
    found = []
    for each, members in by_name.items():
        manifest = Manifest(run_path(root, each, members[0].hash).parent)
        manifest.add(members)
        found.append(manifest)
    return found
