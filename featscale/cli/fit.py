"""`featscale fit`: exponents of measured or predicted curves, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featscale.cli.output import Json, emit, numbers, readable
from featscale.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featscale.fits import CurveFit
    from featscale.fits.resample import Rows

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

ROWS_PER_DECADE = 50
SUFFIXES = (".png", ".pdf", ".svg")


@app.callback()
def fit() -> None:
    """Exponents of measured or predicted curves, with intervals that come from the seeds."""


@app.command()
def curve(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="csv or parquet with columns t, loss[, seed], or a run directory.")
    ],
    window: Annotated[
        str | None,
        typer.Option(metavar="LO,HI", help="Fit t from LO to HI, in units of t. Default: the last decade and a half."),
    ] = None,
    floor: Annotated[
        str, typer.Option(metavar="zero|VALUE|free", help="Irreducible loss E: none, a known value, or fitted too.")
    ] = "zero",
    level: Annotated[float, typer.Option(help="Level of the interval, in (0, 1).")] = 0.95,
    predicted: Annotated[float | None, typer.Option(help="Exponent of theory to compare with; needs --margin.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Largest difference from --predicted that does not matter.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw rows, fit, band and residuals here: .png, .pdf or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Exponent chi of loss = floor + amplitude t^-chi over a window of t.

    The interval comes from the scatter between seeds, so one seed has none. Read the flags before quoting the number: they tell of
    diverged seeds, short windows, an exponent that moves within the window, a floor the data do not determine. t is flow time (learning
    rate times steps) in a run's own table, or whatever unit the file has. With --predicted and --margin the verdict is "agrees" if
    the whole interval lies within predicted ± margin, "differs" if it lies wholly outside, else "undecided".

    Example: featscale fit curve runs/hard_rich/3f9a --window 10,1000 --predicted 0.667 --margin 0.05 --plot fit.png
    """
    bounds = None if window is None else numbers(window, "window", "two numbers lo,hi with 0 < lo < hi")
    require((predicted is None) == (margin is None), "margin", margin, "given together with predicted, or neither")
    require(margin is None or margin > 0, "margin", margin, "a number > 0")
    if plot is not None:
        require(plot.suffix in SUFFIXES, "plot", plot, f"a file that ends in {', '.join(SUFFIXES)}")
        require(plot.parent.is_dir(), "plot", plot, "a file in a folder that exists")

    from featscale.fits import fit_curve, verdict
    from featscale.fits.curve import checked
    from featscale.fits.table import read_columns

    asked, _, _ = checked(None if bounds is None else bounds.tolist(), floor, level)
    columns = read_columns(file, ["t", "loss"], ["seed"])
    fitted = fit_curve(
        columns["t"],
        columns["loss"],
        columns.get("seed"),
        window=asked,
        floor=floor,
        level=level,
    )
    result = {name: value for name, value in asdict(fitted).items() if name not in ("t", "loss")}
    if predicted is not None and margin is not None:
        result |= {"predicted": predicted, "margin": margin, "verdict": verdict(fitted, predicted, margin)}
    if plot is not None:
        _plot(fitted, columns, plot)
        result["plot"] = plot
    emit(result, as_json, _render)


def _render(result: Mapping[str, Any]) -> None:
    """The result without its local exponents, a flag a line."""
    shown = {name: value for name, value in result.items() if "local" not in name and name != "flags"}
    width = max(map(len, shown))
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}  {readable(value)}")
    for flag in result["flags"] or ("none",):
        typer.echo(f"{'flag':<{width}}  {flag}")


def _plot(fitted: CurveFit, columns: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    from featscale.fits.resample import clean

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    draw(figure, fitted, clean(columns["t"], columns["loss"], columns.get("seed")))
    figure.savefig(path, dpi=150)


def draw(figure: Figure, fitted: CurveFit, rows: Rows) -> None:
    """Rows, fit and band in log-log, and underneath the relative residuals; rows outside the window are grey."""
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lo, hi = fitted.window
    for s, label in enumerate(rows.labels):
        t, loss = _thinned(rows, s)
        inside = (t >= lo) & (t <= hi) & (label in fitted.seeds)
        for mask, style in ((~inside, {"color": "0.75"}), (inside, {"color": "C0", "alpha": 0.6})):
            top.plot(t[mask], loss[mask], ".", markersize=3, markeredgewidth=0, **style)
            below.plot(t[mask], loss[mask] / fitted.at(t[mask]) - 1, ".", markersize=3, markeredgewidth=0, **style)
    _draw_fit(top, below, fitted)
    top.set(xscale="log", yscale="log", ylabel="loss")
    below.set(xlabel="t", ylabel="loss / fit − 1")
    spread = 1.3 * abs(fitted.loss / fitted.at(fitted.t) - 1).max() or 1e-3
    below.set_ylim(-spread, spread)


def _draw_fit(top: Axes, below: Axes, fitted: CurveFit) -> None:
    t, line = fitted.t, fitted.at(fitted.t)
    lo, hi = fitted.interval
    n = len(fitted.seeds)
    seeds = "one seed, no interval" if n == 1 else f"{100 * fitted.level:g} % interval {lo:.4g} to {hi:.4g}, {n} seeds"
    floor = f", floor {fitted.floor:.4g} ({fitted.floor_kind})" if fitted.floor_kind != "zero" else ""
    top.plot(t, line, color="C3", label=f"exponent {fitted.exponent:.4g}{floor}\n{seeds}")
    below.axhline(0, color="C3", linewidth=1)
    if n > 1:
        low, high = fitted.band(t)
        top.fill_between(t, low, high, color="C3", alpha=0.25, linewidth=0)
        below.fill_between(t, low / line - 1, high / line - 1, color="C3", alpha=0.25, linewidth=0)
    for axes in (top, below):
        for edge in fitted.window:
            axes.axvline(edge, color="0.6", linestyle=":", linewidth=1)
    top.legend(frameon=False)


def _thinned(rows: Rows, s: int) -> tuple[Any, Any]:
    """At most 50 rows a decade of seed s with a loss that a log axis can show."""
    import numpy as np

    part = slice(rows.start[s], rows.start[s + 1])
    t, loss = rows.t[part], rows.loss[part]
    if t.size == 0:
        return t, loss
    decades = np.log10(t[-1] / t[0])
    grid = np.geomspace(t[0], t[-1], 2 + int(ROWS_PER_DECADE * decades))
    rank = np.unique(np.minimum(np.searchsorted(t, grid), t.size - 1))
    rank = rank[loss[rank] > 0]
    return t[rank], loss[rank]
