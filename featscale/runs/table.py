"""Many runs as one table: what there is, how each ended, and the curves of those that finished."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from featscale.errors import BadInput, require
from featscale.runs.claims import LOCK, pulse
from featscale.runs.directory import (
    CONFIG,
    CURVE_COLUMNS,
    RECORD,
    SCIENCE,
    RunDirectory,
    read_science,
    unfinished,
)
from featscale.runs.identity import HASH_DIGITS, flattened, is_hash
from featscale.runs.manifest import MANIFEST, Planned
from featscale.runs.record import NONFINITE, Record, read_record

log = logging.getLogger(__name__)

# The columns of every table; those after them are entries of the science configuration under dotted names.
COLUMNS: dict[str, type[pl.DataType]] = {
    "name": pl.String,
    "hash": pl.String,
    "status": pl.String,
    "cause": pl.String,
    "step": pl.Int64,
    "steps": pl.Int64,
    "loss": pl.Float64,
    "wall_seconds": pl.Float64,
    "flops": pl.Float64,
    "seconds_left": pl.Float64,
    "heartbeat_age": pl.Float64,
    "started": pl.String,
    "ended": pl.String,
    "path": pl.String,
}
# Any of these makes a folder with a hash for a name a run; the most likely first.
MARKS = (RECORD, CONFIG, LOCK)
FINISHED = ("done", "diverged")
HASH_FIRST = re.compile(rf'\{{"hash": "([0-9a-f]{{{HASH_DIGITS}}})"')


@dataclass(frozen=True)
class Entry:
    """One line of the table: the values of COLUMNS that are known, and the flattened science configuration."""

    values: Mapping[str, Any]
    science: Mapping[str, Any]


def runs_table(root: str | Path) -> pl.DataFrame:
    """One row for each run directory at any depth below `root`, and each run of a manifest there, sorted by name and hash.

    Statuses are those of :meth:`featscale.runs.directory.RunDirectory.status`, and "unreadable" for a record that cannot be read, with
    the reason as its cause; a run of a manifest that has no directory yet is "missing". loss is the last one recorded; wall_seconds of a run
    without a record are those since it began or went on; seconds_left and heartbeat_age are of runs without a record. name is the
    folder's, wherever it was moved. Links to folders are not followed.
    Arguments: root, a folder of runs, or one run directory.
    Returns: columns COLUMNS, then the science configuration under dotted names (model.N, parameterization.gamma, …), null where a run
    lacks an entry; an entry that has another kind in other runs is JSON text.
    Raises: BadInput if `root` is no folder.
    Cost: one small file a finished run, about 0.1 ms.
    """
    folder = Path(root)
    require(folder.is_dir(), "root", root, "an existing folder of runs")
    entries = [_entry(path) for path in _directories(folder)]
    entries += _planned(folder, {(entry.values["name"], entry.values["hash"]) for entry in entries})
    entries.sort(key=lambda entry: (entry.values["name"], entry.values["hash"]))
    keys = dict.fromkeys(key for entry in entries for key in entry.science if key not in COLUMNS)
    known = [
        pl.Series(name, [CONVERT[kind](entry.values.get(name)) for entry in entries], kind)
        for name, kind in COLUMNS.items()
    ]
    return pl.DataFrame(known).with_columns(_column(key, [entry.science.get(key) for entry in entries]) for key in keys)


def collect(root: str | Path, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The curves below `root` that finished, done or diverged, as one tidy table; see :func:`curves`."""
    return curves(runs_table(root), columns)


def curves(table: pl.DataFrame, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The curves of the finished runs in `table`, under each other, with what tells the runs apart.

    Arguments: table, from :func:`runs_table`. columns, new name → entry of the science configuration to be put under that name whether it
    varies or not, for example {"N": "model.N"}.
    Returns: columns name, hash, those of `columns`, every science entry that differs between these runs, then the curves' own step, t,
    seed, loss, …; an entry that is named like a column of the curves (seed) is left to them.
    Raises: BadInput for a curve that cannot be read, an unknown entry, or a new name that is taken.
    """
    chosen = dict(columns or {})
    runs = table.filter(pl.col("status").is_in(FINISHED))
    frames = [RunDirectory(Path(path)).read_curve() for path in runs["path"]]
    rows = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(schema=CURVE_COLUMNS)
    science = [column for column in table.columns if column not in COLUMNS]
    for name, entry in chosen.items():
        require(entry in science, "columns", entry, f"an entry of the science configuration: {', '.join(science)}")
        require(name not in (*rows.columns, "name", "hash"), "columns", name, "a name that no column has yet")
    varying = [column for column in varying_columns(runs) if column not in (*rows.columns, *chosen)]
    named = runs.select("name", "hash", *(pl.col(entry).alias(name) for name, entry in chosen.items()), *varying)
    lengths = [frame.height for frame in frames]
    return named[np.repeat(np.arange(len(frames)), lengths)].hstack(rows)


def varying_columns(table: pl.DataFrame) -> list[str]:
    """The science entries that differ between the runs of `table`."""
    return [column for column in table.columns if column not in COLUMNS and table[column].n_unique() > 1]


def _directories(root: Path) -> Iterator[str]:
    """Every run directory at or below `root`."""
    waiting = [str(root.absolute())]
    while waiting:
        folder = waiting.pop()
        if is_hash(os.path.basename(folder)) and any(os.path.exists(f"{folder}/{mark}") for mark in MARKS):
            yield folder
            continue
        try:
            with os.scandir(folder) as inside:
                waiting += (item.path for item in inside if item.is_dir(follow_symlinks=False))
        except OSError as error:
            # Folders come and go while runs start; one that is there and cannot be read must be known.
            log.warning("left out: %s: %s", folder, error.strerror)


def _planned(root: Path, known: Container[tuple[str, str]]) -> Iterator[Entry]:
    """The runs of manifests in `root` or in the folders in it that have no directory yet."""
    with os.scandir(str(root.absolute())) as inside:
        folders = [
            Path(root.absolute()),
            *sorted(Path(item.path) for item in inside if item.is_dir(follow_symlinks=False)),
        ]
    for path in (folder / MANIFEST for folder in folders):
        name = path.parent.name
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            log.warning("left out: %s: %s", path, error)
            continue
        for number, line in enumerate(lines, start=1):
            # The hash stands first in a line; only those of missing runs are read whole.
            head = HASH_FIRST.match(line)
            if head and (name, head[1]) in known:
                continue
            try:
                run = Planned.from_json(line)
            except BadInput as error:
                log.warning("left out: %s, line %d: %s", path, number, error)
                continue
            place = str(path.with_name(run.hash))
            values = {
                "name": name,
                "hash": run.hash,
                "path": place,
                "status": "missing",
                "steps": run.config.get("steps"),
            }
            yield Entry(values, _leaves(run.science))


def _entry(path: str) -> Entry:
    parent, config = os.path.split(path)
    values: dict[str, Any] = {"name": os.path.basename(parent), "hash": config, "path": path}
    # Texts for paths here: of 10,000 finished runs, making Path objects took a fifth of the time.
    if os.path.exists(f"{path}/{RECORD}"):
        try:
            record = read_record(f"{path}/{RECORD}")
        except BadInput as error:
            return Entry(values | {"status": "unreadable", "cause": error.allowed}, _science(Path(path)))
        return Entry(values | _recorded(record), _leaves(record.science))
    directory = Path(path)
    signs = pulse(directory)
    beat = signs.beat
    return Entry(
        values
        | {
            "status": unfinished(directory, signs),
            "step": beat.get("step"),
            "steps": beat.get("steps"),
            "heartbeat_age": signs.age,
            "seconds_left": signs.seconds_left if signs.alive else None,
            "wall_seconds": signs.seconds,
        },
        _science(directory),
    )


def _recorded(record: Record) -> dict[str, Any]:
    names = ("status", "cause", "step", "steps", "wall_seconds", "flops", "started", "ended")
    return {name: getattr(record, name) for name in names} | {"loss": record.metrics.get("loss")}


def _science(path: Path) -> Mapping[str, Any]:
    """The flattened science of a run without a record; empty if there is none yet or it cannot be read."""
    if not (path / SCIENCE).exists():
        return {}
    try:
        return _leaves(read_science(path / SCIENCE))
    except BadInput as error:
        log.warning("%s", error)
        return {}


def _leaves(science: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entries of a canonical science configuration under dotted names, its infinities as numbers."""
    entries = flattened(science)
    return {key: NONFINITE.get(value, value) if type(value) is str else value for key, value in entries.items()}


def _integer(value: Any) -> int | None:
    """`value` if it is an integer of 64 bits, for what others wrote must not break the table."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _text(value: Any) -> str | None:
    """`value` if it is a text, with ? for what UTF-8 has not (bytes of a file name in a message)."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


CONVERT: dict[Any, Callable[[Any], Any]] = {pl.String: _text, pl.Int64: _integer, pl.Float64: _number}


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    """The values as a column of the narrowest kind that holds them all; JSON text where kinds are mixed."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {bool}:
        return pl.Series(name, values, pl.Boolean)
    if kinds == {int} and all(value is None or _integer(value) is not None for value in values):
        return pl.Series(name, values, pl.Int64)
    if kinds <= {int, float}:
        return pl.Series(name, [_number(value) for value in values], pl.Float64)
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pl.Series(name, [_text(value) for value in texts], pl.String)
