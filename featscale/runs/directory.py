"""A run's directory: what is in it, who may write to it, and what state it is in."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml  # type: ignore[import-untyped]

from featscale.errors import BadInput, require
from featscale.runs.claims import HEARTBEAT, Pulse, pulse
from featscale.runs.files import json_object, write_atomically
from featscale.runs.identity import canonical, config_hash
from featscale.runs.record import Record, read_record

log = logging.getLogger(__name__)

CONFIG, SCIENCE, CURVE, CHECKPOINT, PREVIOUS, RECORD = (
    "config.yaml",
    "science.json",
    "curve.parquet",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "record.json",
)
# The first and last bytes of every Parquet file.
PARQUET = b"PAR1"
MEND = "retry_failed=true trains the run again"
CURVE_COLUMNS = {"step": pl.Int64, "t": pl.Float64, "seed": pl.Int64, "loss": pl.Float64}

Status = Literal["done", "diverged", "failed", "running", "interrupted", "missing"]


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
class RunDirectory:
    """The folder root/name/hash of one run, of which :func:`featscale.runs.identity.run_path` makes the path.

    In it: config.yaml, all that was resolved; science.json, what the hash is of; curve.parquet; checkpoint.pt and the one before it; lock
    and heartbeat of the process that trains it; and last record.json, which makes the run finished. Every file is replaced as a whole, so that a kill at any
    moment leaves the old one or the new one.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint lies, or will."""
        return self.path / CHECKPOINT

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, or the one before it."""
        return self.checkpoint.exists() or (self.path / PREVIOUS).exists()

    def write_config(self, config: Mapping[str, Any], science: Mapping[str, Any]) -> None:
        """Write the resolved configuration and the part of it that names the run.

        Raises: BadInput if the folder is not named by the hash of `science`, or holds another science already.
        """
        expected = config_hash(science)
        require(self.path.name == expected, "hash", self.path.name, f"{expected}, the hash of this configuration")
        names = canonical(science)
        require(
            self._science() in (None, names),
            "hash",
            self.path,
            "a folder of this very configuration; science.json there differs",
        )
        text = yaml.dump(_plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        # Not waited for: what a power cut takes of these is written again by whoever trains the run.
        write_atomically(self.path / CONFIG, text.encode(), durable=False)
        write_atomically(self.path / SCIENCE, (json.dumps(names, indent=1) + "\n").encode(), durable=False)

    def _science(self) -> Mapping[str, Any] | None:
        """What science.json says; None if there is none or it is no JSON object."""
        try:
            return read_science(self.path / SCIENCE)
        except BadInput:
            return None

    def write_curve(self, rows: pl.DataFrame) -> None:
        """Write the curve: columns step, t, seed, loss and any more of numbers; a frame without rows may lack them."""
        if rows.is_empty():
            rows = pl.DataFrame(schema=CURVE_COLUMNS | dict(rows.schema))
        lacking = ", ".join(column for column in CURVE_COLUMNS if column not in rows.columns)
        require(not lacking, "curve", f"no column {lacking}", f"columns {', '.join(CURVE_COLUMNS)}")
        file = io.BytesIO()
        if any(rows.schema[name] != kind for name, kind in CURVE_COLUMNS.items()):
            rows = rows.with_columns(pl.col(name).cast(kind) for name, kind in CURVE_COLUMNS.items())
        rows.write_parquet(file)
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
        for name in (HEARTBEAT, PREVIOUS):
            (self.path / name).unlink(missing_ok=True)

    def problem(self) -> BadInput | None:
        """What is wrong with a run that has a record: a record that cannot be read, or a curve that is missing or cut off; None if nothing.

        Cost: 0.1 ms; of the curve only its ends are looked at, of which the last is the first to go when a file is cut.
        """
        try:
            if self.read_record().status == "failed":
                return None
        except BadInput as error:
            return error
        try:
            with open(self.path / CURVE, "rb") as file:
                start, size = file.read(4), file.seek(0, io.SEEK_END)
                file.seek(max(size - 8, 0))
                end = file.read(8)
        except OSError as error:
            return BadInput("curve", self.path / CURVE, f"a whole curve ({error.strerror}); {MEND}")
        whole = start == end[4:] == PARQUET and int.from_bytes(end[:4], "little") <= size - 12
        return None if whole else BadInput("curve", self.path / CURVE, f"a whole curve, this one is cut off; {MEND}")

    def read_record(self) -> Record:
        """The record. Raises: BadInput that names the file and what to do if there is none or it cannot be read."""
        return read_record(self.path / RECORD)

    def restart(self) -> None:
        """Forget an earlier attempt: its checkpoint, its curve and, last, its record."""
        for name in (CHECKPOINT, PREVIOUS, CURVE, RECORD):
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


def should_run(directory: RunDirectory, retry_failed: bool = False, claimed: bool = False) -> Decision:
    """Whether a run that is asked for is to be trained.

    Arguments: retry_failed, train a failed run again, from the start; a run whose record or curve is damaged counts as one. claimed, that
    the caller holds the claim, so that nobody else is at it; ask once more inside the claim, for another process may have finished the run
    in between.
    Returns: START, RESUME (there is a checkpoint), RETRY (call :meth:`RunDirectory.restart`), or why not: FINISHED, FAILED, BUSY.
    Raises: BadInput for a record or a curve that is damaged, unless `retry_failed`.
    """
    if (directory.path / RECORD).exists():
        if problem := directory.problem():
            if retry_failed:
                log.warning("%s; training the run again", problem)
                return Decision.RETRY
            raise problem
        if directory.read_record().status != "failed":
            return Decision.FINISHED
        return Decision.RETRY if retry_failed else Decision.FAILED
    if not claimed and pulse(directory.path).alive:
        return Decision.BUSY
    return Decision.RESUME if directory.has_checkpoint else Decision.START


def unfinished(path: Path, signs: Pulse) -> Status:
    """The status of a run without a record."""
    if signs.alive:
        return "running"
    return "interrupted" if (path / CONFIG).exists() else "missing"


def read_science(path: Path) -> Mapping[str, Any]:
    """What the hash is of, from science.json. Raises: BadInput that names the file if it cannot be read."""
    try:
        science = json_object(path.read_bytes())
    except OSError as error:
        raise BadInput("science", path, f"a readable file ({error.strerror})") from None
    require(bool(science), "science", path, "one JSON object; delete the folder to train the run again")
    return science


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
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
