"""The record of a run: how it ended, from what, on what; written last, read strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from featscale.errors import BadInput, require
from featscale.runs.identity import canonical

SCHEMA = 2
Outcome = Literal["done", "diverged", "failed"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

NUMBER, OPTIONAL_NUMBER = (int, float), (int, float, type(None))
KINDS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "name": str,
    "hash": str,
    "science": Mapping,
    "seeds": tuple,
    "step": int,
    "steps": int,
    "wall_seconds": NUMBER,
    "started": str,
    "ended": str,
    "cause": (str, type(None)),
    "stopped": tuple,
    "metrics": Mapping,
    "flops": OPTIONAL_NUMBER,
    "overrides": tuple,
    "host": str,
    "device": str,
    "versions": Mapping,
    "git": (Mapping, type(None)),
    "processes": int,
    "mirror_problem": (str, type(None)),
}
STOP_KINDS: dict[str, type | tuple[type, ...]] = {
    "seed": (int, type(None)),
    "step": int,
    "t": NUMBER,
    "loss": OPTIONAL_NUMBER,
    "K": OPTIONAL_NUMBER,
}


@dataclass(frozen=True)
class Stop:
    """Where a seed left the track, or where the run failed.

    seed, None for the whole run. step, number of updates made. t, flow time. loss there, and K where the model has one.
    """

    seed: int | None
    step: int
    t: float
    loss: float | None = None
    K: float | None = None

    def __post_init__(self) -> None:
        _check_kinds(self, STOP_KINDS, "stopped.")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is kept of a finished run beside its curve.

    status: "done", "diverged" (a result; `stopped` says where) or "failed", with its cause. name and hash, the folder. science, what the
    hash is of; read from a file it is in its canonical form. seeds, trained side by side. step, updates made, of steps asked for.
    wall_seconds of training. started, ended, ISO 8601 in UTC. stopped, where seeds left the track. metrics, numbers at the end, `loss`
    among them (the mean over seeds). flops of the run, all seeds, an estimate. overrides, as typed. device, host, versions, git as
    :mod:`featscale.runs.provenance` finds them. processes, that trained it together (DDP). mirror_problem, what went wrong with W&B. extra,
    entries of other writers of this schema, kept as they are.
    Raises: BadInput for a value of the wrong kind.
    """

    status: Outcome
    name: str
    hash: str
    science: Mapping[str, Any]
    seeds: tuple[int, ...]
    step: int
    steps: int
    wall_seconds: float
    started: str
    ended: str
    cause: str | None = None
    stopped: tuple[Stop, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    flops: float | None = None
    overrides: tuple[str, ...] = ()
    host: str = ""
    device: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None
    processes: int = 1
    mirror_problem: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.status in OUTCOMES, "status", self.status, f"one of {', '.join(OUTCOMES)}")
        _check_kinds(self, KINDS)

    def to_json(self) -> str:
        """The record as one JSON object, ordered for a reader; infinities and NaN are texts, since JSON has none."""
        entries: dict[str, Any] = {"schema": SCHEMA}
        for entry in fields(self):
            if entry.name != "extra":
                entries[entry.name] = getattr(self, entry.name)
        entries["science"] = canonical(self.science)
        entries["stopped"] = [vars(stop) for stop in self.stopped]
        return (
            json.dumps(
                encoded(entries | {key: item for key, item in self.extra.items() if key not in entries}),
                indent=1,
                allow_nan=False,
            )
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """The record that :meth:`to_json` of this featscale or an older one wrote; entries it does not know are kept in `extra`.

        Raises: BadInput that says what is wrong: no JSON object, a newer schema, an entry missing or of the wrong kind.
        """
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput("record", f"not JSON ({error})", "one JSON object") from None
        require(isinstance(entries, dict), "record", type(entries).__name__, "one JSON object")
        schema = entries.pop("schema", None)
        require(isinstance(schema, int) and schema >= 1, "schema", schema, f"an integer from 1 to {SCHEMA}")
        require(
            schema <= SCHEMA, "schema", schema, f"at most {SCHEMA}: it was written by a newer featscale, update yours"
        )
        for older in range(schema, SCHEMA):
            MIGRATIONS[older](entries)
        for name in REQUIRED:
            require(name in entries, name, "missing", "an entry of every record")
        known = {name: entries.pop(name) for name in KINDS if name in entries}
        known["metrics"] = decoded(known.get("metrics", {}))
        for name in ("seeds", "overrides"):
            known[name] = _tuple(name, known.get(name, []))
        known["stopped"] = tuple(_stop(entry) for entry in _tuple("stopped", known.get("stopped", [])))
        return cls(**known, extra=entries)


def _from_1(entries: dict[str, Any]) -> None:
    """Schema 2 has the trouble with W&B as an entry of its own, and says how many processes trained the run: always one before."""
    entries["mirror_problem"] = entries.pop("wandb_problem", None)
    entries["processes"] = 1


# From a schema to the next: each changes the entries in place, and a record goes through all that it is behind.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {1: _from_1}
REQUIRED = tuple(entry.name for entry in fields(Record) if entry.default is entry.default_factory is MISSING)


def read_record(path: str | Path) -> Record:
    """The record in the file `path`.

    Raises: BadInput that names the file, what is wrong with it and what to do; nothing else, whatever the file holds.
    """
    try:
        with open(path, "rb") as file:
            return Record.from_json(file.read())
    except OSError as error:
        raise BadInput("record", path, f"a readable file ({error.strerror})") from None
    except BadInput as error:
        advice = "" if "newer featscale" in error.allowed else "; delete the file to train the run again"
        raise BadInput("record", path, f"a complete record; here {error}{advice}") from None


def _check_kinds(entry: object, kinds: Mapping[str, type | tuple[type, ...]], prefix: str = "") -> None:
    for name, kind in kinds.items():
        value = getattr(entry, name)
        if not isinstance(value, kind):
            allowed = kind if isinstance(kind, tuple) else (kind,)
            spelt = " or ".join("None" if one is type(None) else one.__name__ for one in allowed)
            raise BadInput(f"{prefix}{name}", f"{type(value).__name__} {value!r}", f"of kind {spelt}")


def encoded(value: Any) -> Any:
    """`value` as JSON types: infinities and NaN as texts, arrays and tuples as lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        return encoded(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): encoded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encoded(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def decoded(value: Any) -> Any:
    """What :func:`encoded` made texts as numbers again, at any depth."""
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return NONFINITE.get(value, value) if isinstance(value, str) else value


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    require(isinstance(value, list), name, f"{type(value).__name__} {value!r}", "a list")
    return tuple(value)


def _stop(entry: Any) -> Stop:
    complete = isinstance(entry, dict) and {"seed", "step", "t"} <= set(entry)
    require(complete, "stopped", entry, "objects with seed, step and t")
    return Stop(**decoded({name: value for name, value in entry.items() if name in STOP_KINDS}))
