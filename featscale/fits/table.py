"""Columns of a table on disk, csv or parquet, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from numpy.typing import NDArray

from featscale.errors import BadInput, require

T = TypeVar("T")

PARQUET = b"PAR1"
CURVE = "curve.parquet"
# Rows from which the type of a csv column of labels is told.
INFERRED = 10_000


def read_columns(path: str | Path, numbers: Sequence[str], labels: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read some columns of a csv or parquet file, or of the curve table of a run directory.

    The first bytes, not the name, tell parquet from csv (comma-separated, one header line, spaces around names allowed). An empty cell is
    NaN; a row empty in all these columns is no row.
    Arguments: path, a file, or a directory that holds curve.parquet. numbers, columns that must be there. labels, columns that may
    be there and name things: seeds, runs.
    Returns: the columns found, shape (n,): `numbers` as float64, `labels` as they are.
    Raises: BadInput naming FILE for one that is missing, unreadable, damaged or empty, or whose cells are no numbers; naming the column
    for one that is not there.
    Cost: memory and time in the columns read; 10^7 rows of three take a second from parquet, a few from csv.
    """
    path = Path(path)
    file = path / CURVE if path.is_dir() else path
    table = _parquet(file) if _is_parquet(file) else _csv(file, numbers)
    columns = {name.strip(): name for name in _readable(file, lambda: table.collect_schema().names())}
    for name in numbers:
        there = ", ".join(columns)[:200]
        there = there if there.isprintable() else "not readable as text"
        require(name in columns, name, f"no such column in {file}", f"the columns there are: {there}")
    found = [name for name in labels if name in columns]
    picked = [pl.col(columns[name]).alias(name) for name in [*numbers, *found]]
    query = (
        table.select(picked)
        .filter(~pl.all_horizontal(pl.all().is_null()))
        .with_columns(pl.col(numbers).cast(pl.Float64))
    )
    frame = _readable(file, query.collect)
    require(frame.height > 0, "FILE", file, "at least one row below the header")
    for name in found:
        require(frame[name].null_count() == 0, name, "empty in some row", f"a {name} in every row")
    return {name: frame[name].to_numpy() for name in frame.columns}


def _is_parquet(file: Path) -> bool:
    allowed = f"a csv or parquet file, or a run directory that holds {CURVE}"
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(PARQUET))
    except OSError as error:
        raise BadInput("FILE", file, f"{allowed}: {error.strerror}") from None
    require(len(magic) > 0, "FILE", file, f"{allowed}: it is empty")
    require(magic == PARQUET or file.suffix != ".parquet", "FILE", file, "a parquet file: it does not begin as one")
    return magic == PARQUET


def _parquet(file: Path) -> pl.LazyFrame:
    return pl.scan_parquet(file, glob=False)


def _csv(file: Path, numbers: Sequence[str]) -> pl.LazyFrame:
    names = _readable(file, pl.scan_csv(file, glob=False, infer_schema=False, n_rows=0).collect_schema).names()
    # A column that begins with whole numbers may go on with fractions.
    types = {name: pl.Float64 for name in names if name.strip() in numbers}
    return pl.scan_csv(file, glob=False, schema_overrides=types, infer_schema_length=INFERRED, encoding="utf8-lossy")


def _readable(file: Path, read: Callable[[], T]) -> T:
    """What `read` returns; BadInput with the first line of the reason where polars cannot."""
    try:
        return read()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput("FILE", file, f"a readable csv or parquet file: {reason}") from None
