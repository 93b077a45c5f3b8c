"""The curves that `featscale fit curve` is given: of one file, of one run, or of a folder of many runs, by configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featscale.errors import BadInput, require

if TYPE_CHECKING:
    import polars as pl

CURVE = "curve.parquet"
# The last part of an entry that tells replicates, not conditions, apart.
REPLICATES = ("seed", "seeds", "ensemble", "members")


@dataclass(frozen=True)
class Group:
    """Curves of one condition: what tells it from the others, t, loss, shape (n,), seed, shape (n,) or None, and the hashes of its runs."""

    config: Mapping[str, Any]
    t: NDArray[np.float64]
    loss: NDArray[np.float64]
    seed: NDArray[Any] | None
    runs: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.config.items())


def read_groups(file: Path, by: Sequence[str]) -> list[Group]:
    """The groups in `file`: of a table, by the columns `by`; of a folder of runs, by every entry of the configuration that varies.

    Raises: BadInput for what cannot be read, or a folder without finished runs.
    """
    if file.is_dir() and not (file / CURVE).exists():
        return _runs(file)
    from featscale.fits.table import read_columns

    taken = [name for name in by if name in ("t", "loss", "seed")]
    require(not taken, "pair", ", ".join(taken), "a column that tells conditions apart")
    columns = read_columns(file, ["t", "loss"], ["seed", *by])
    for name in by:
        require(name in columns, "pair", name, f"a column of {file}")
    keys = list(zip(*(columns[name].tolist() for name in by), strict=True)) if by else [()] * columns["t"].size
    seed = columns.get("seed")
    groups = []
    for key in sorted(set(keys)) if by else [()]:
        rows = np.array([k == key for k in keys]) if by else slice(None)
        config = dict(zip(by, key, strict=True))
        groups.append(Group(config, columns["t"][rows], columns["loss"][rows], None if seed is None else seed[rows]))
    return groups


def _runs(folder: Path) -> list[Group]:
    from featscale.runs.table import collect

    frame = collect(folder)
    require(frame.height > 0, "FILE", folder, "a file, a run directory or a folder with finished runs")
    first = frame.columns.index("step")
    keys = [name for name in frame.columns[2:first] if name.rsplit(".", 1)[-1] not in REPLICATES]
    parts = frame.partition_by(keys, maintain_order=True) if keys else [frame]
    groups = [_group(part, keys) for part in parts]
    return sorted(groups, key=lambda group: [_order(group.config[key]) for key in keys])


def _group(part: pl.DataFrame, keys: Sequence[str]) -> Group:
    runs = tuple(part["hash"].unique(maintain_order=True).to_list())
    seed = part["seed"].to_numpy()
    pairs = part.select("hash", "seed").unique()
    if pairs["seed"].n_unique() < pairs.height:
        # Runs that call their seeds alike are replicates all the same.
        seed = np.array([f"{run}/{own}" for run, own in zip(part["hash"], part["seed"], strict=True)])
    config = {key: part[key][0] for key in keys}
    return Group(config, part["t"].to_numpy(), part["loss"].to_numpy(), seed, runs)


def matched(groups: Sequence[Group], entry: str) -> list[tuple[Group, Group]]:
    """Pairs of groups alike but for `entry`: the one with its smallest value, then each of the others.

    Arguments: entry, a name of the configuration or its last part. Raises: BadInput where no entry or no pair is found.
    """
    names = dict.fromkeys(key for group in groups for key in group.config)
    found = [name for name in names if name == entry or name.rsplit(".", 1)[-1] == entry]
    require(len(found) == 1, "pair", entry, f"one of: {', '.join(names) or 'nothing varies'}")
    key = found[0]
    alike: dict[str, list[Group]] = {}
    for group in groups:
        rest = {name: value for name, value in group.config.items() if name != key}
        alike.setdefault(json.dumps(rest, default=str), []).append(group)
    pairs = []
    for members in alike.values():
        ordered = sorted(members, key=lambda group: _order(group.config[key]))
        pairs += [(ordered[0], other) for other in ordered[1:]]
    require(bool(pairs), "pair", entry, "an entry that differs between conditions otherwise alike")
    return pairs


def _order(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, (int, float))
    return (not number, value if number else str(value))


def read_prediction(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """t and loss of a predicted curve: a table, or the JSON of `featscale theory flow`."""
    if file.suffix != ".json":
        from featscale.fits.table import read_columns

        columns = read_columns(file, ["t", "loss"])
        return columns["t"], columns["loss"]
    try:
        content = json.loads(file.read_text("utf-8"))
        return np.asarray(content["t"], np.float64), np.asarray(content["loss"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        allowed = f"a table or JSON object with t and loss: {type(error).__name__}"
        raise BadInput("predicted-curve", file, allowed) from None
