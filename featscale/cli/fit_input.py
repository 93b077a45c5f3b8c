"""Columns for the law and frontier fits, from a table on disk or from a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from featscale.errors import BadInput, require

Columns = dict[str, NDArray[Any]]

# Columns of a folder of runs that are entries of its runs' science configuration.
SCIENCE = {"N": "model.N", "gamma": "parameterization.gamma", "eta": "optimizer.eta0", "batch": "data.B"}
SUFFIXES = (".png", ".pdf", ".svg")

File = Annotated[Path, typer.Argument(metavar="FILE", help="csv, parquet, or a folder of runs.")]
Window = Annotated[
    str | None, typer.Option(metavar="LO,HI", help="Use rows with t from LO to HI only, in units of t. Default: all.")
]
Gamma = Annotated[
    float | None, typer.Option(help="Use rows of this richness only, where the column gamma has several.")
]
Renamed = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=COLUMN", help="Read NAME from this column of the file. Repeatable."),
]
Level = Annotated[float, typer.Option(help="Level of the intervals, in (0, 1).")]
Draws = Annotated[int, typer.Option(help="Largest number of bootstrap resamples, at least 20.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it here: .png, .pdf or .svg.")]


def read(file: Path, numbers: Sequence[str], renamed: Sequence[str] | None = None) -> Columns:
    """The columns `numbers`, and seed and gamma if there are any, shape (n,) each.

    noise, where asked for and not in the file, is eta / batch. Raises: BadInput as read_columns does, or for a folder without finished runs.
    """
    names = _mapping(renamed)
    if file.is_dir():
        require(not names, "column", ",".join(renamed or ()), "a file; a folder of runs has its own names")
        return _with_noise(_runs(file), numbers)
    from featscale.fits.table import read_columns

    try:
        found = read_columns(file, [names.get(k, k) for k in numbers], _labels(names))
    except BadInput as error:
        if "noise" not in numbers or error.field != "noise":
            raise
        parts = [k for k in numbers if k != "noise"] + ["eta", "batch"]
        found = read_columns(file, [names.get(k, k) for k in parts], _labels(names))
    back = {there: name for name, there in names.items()}
    return _with_noise({back.get(name, name): values for name, values in found.items()}, numbers)


def _labels(names: dict[str, str]) -> list[str]:
    return [names.get(k, k) for k in ("seed", "gamma")]


def _mapping(renamed: Sequence[str] | None) -> dict[str, str]:
    names = {}
    for text in renamed or ():
        name, sign, there = text.partition("=")
        require(bool(name and sign and there), "column", text, "NAME=COLUMN")
        names[name.strip()] = there.strip()
    return names


def _runs(folder: Path) -> Columns:
    from featscale.runs.table import curves, runs_table

    table = runs_table(folder)
    require(
        "N" not in table.columns and "model.N" in table.columns, "FILE", folder, "a folder that holds runs of a model"
    )
    rows = curves(table, {name: entry for name, entry in SCIENCE.items() if entry in table.columns})
    require(rows.height > 0, "FILE", folder, "a folder with at least one finished run")
    wanted = [name for name in (*SCIENCE, "t", "loss", "seed") if name in rows.columns]
    return {name: rows[name].to_numpy() for name in wanted}


def _with_noise(columns: Columns, numbers: Sequence[str]) -> Columns:
    if "noise" in numbers and "noise" not in columns:
        for name in ("eta", "batch"):
            require(name in columns, name, "no such column", "columns eta and batch, or noise = eta / batch")
        columns = columns | {"noise": columns["eta"] / columns["batch"]}
    return columns


def of_gamma(columns: Columns, gamma: float | None) -> Columns:
    """The rows of one richness."""
    if "gamma" not in columns:
        require(gamma is None, "gamma", gamma, "a file with a column gamma")
        return columns
    there = np.unique(columns["gamma"])
    text = ", ".join(f"{value:g}" for value in there[:8])
    if gamma is None:
        require(there.size == 1, "gamma", text, "one of them, with --gamma")
        return columns
    chosen = np.isclose(columns["gamma"].astype(np.float64), gamma, rtol=1e-9, atol=0)
    require(bool(chosen.any()), "gamma", gamma, f"one of {text}")
    return {name: values[chosen] for name, values in columns.items()}


def plot_path(plot: Path | None) -> None:
    """BadInput for a picture that could not be written, before any work is done."""
    if plot is not None:
        require(plot.suffix in SUFFIXES, "plot", plot, f"a file that ends in {', '.join(SUFFIXES)}")
        require(plot.parent.is_dir(), "plot", plot, "a file in a folder that exists")
