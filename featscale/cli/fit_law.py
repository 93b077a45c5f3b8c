"""`featscale fit law`: the parameters of a scaling law, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from featscale.cli.fit import app
from featscale.cli.fit_input import Columns, Draws, File, Gamma, Level, Plot, Renamed, Window, of_gamma, plot_path, read
from featscale.cli.output import Json, emit, numbers, readable
from featscale.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featscale.fits.law_fit import LawFit
    from featscale.fits.observations import Observations

CURVES = 8
INTERNAL = ("law", "replicates", "probability", "quantile")


@app.command("law")
def law_command(
    file: File,
    law: Annotated[str, typer.Option(metavar="NAME", help="Which law; an unknown name lists them.")],
    delta: Annotated[float, typer.Option(help="Width of the Huber loss of log residuals, > 0.")] = 1e-3,
    level: Level = 0.95,
    draws: Draws = 400,
    window: Window = None,
    gamma: Gamma = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="seed|run", help="Resample seeds across runs, or runs. Default: as the table says."),
    ] = None,
    drop_highest: Annotated[int, typer.Option(metavar="K", help="Leave out the K rows with the highest loss.")] = 0,
    column: Renamed = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Parameters of a scaling law by the summed Huber loss of log residuals.

    FILE has the law's columns and loss, and may have seed: N, D, loss for chinchilla; N, t, loss[, seed] for sum, sum_floor, max, qnorm and
    transient; eta and batch too for bottleneck. Intervals resample whole seeds or runs, never points of one trajectory; read the flags
    before quoting a number.

    Example: featscale fit law runs/widths --law sum --window 1,1000 --plot law.png
    """
    bounds = None if window is None else numbers(window, "window", "two numbers lo,hi with 0 < lo < hi")
    require(bounds is None or bounds.size == 2, "window", window, "two numbers lo,hi with 0 < lo < hi")
    require(drop_highest >= 0, "drop_highest", drop_highest, "a number of rows >= 0")
    plot_path(plot)

    from featscale.fits.law_fit import fit_law
    from featscale.fits.laws import law_named
    from featscale.fits.observations import observe

    row = law_named(law)
    columns = of_gamma(read(file, [*row.variables, "loss"], column), gamma)
    observed = observe(
        _without_highest(columns, drop_highest),
        row.variables,
        window=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        cluster=cluster,
    )
    fit = fit_law(row, observed, delta=delta, level=level, draws=draws)
    result = {"law": row.name, "formula": row.formula} | {
        field.name: getattr(fit, field.name) for field in fields(fit) if field.name not in INTERNAL
    }
    if plot is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        draw(figure, fit, observed)
        figure.savefig(plot, dpi=150)
        result["plot"] = plot
    emit(result, as_json, render)


def _without_highest(columns: Columns, k: int) -> Columns:
    if k == 0:
        return columns
    require(k < columns["loss"].size, "drop_highest", k, f"fewer than the {columns['loss'].size} rows")
    keep = np.sort(np.argsort(columns["loss"], kind="stable")[: columns["loss"].size - k])
    return {name: values[keep] for name, values in columns.items()}


def render(result: Mapping[str, Any]) -> None:
    """Parameters as a table, then what else there is, a flag a line."""
    typer.echo(f"{result['law']}: loss = {result['formula']}\n")
    typer.echo(f"{'':<10}{'value':>12}  {100 * result['level']:g} % interval")
    for name, value in result["parameters"].items():
        lo, hi = result["intervals"][name]
        how = result["methods"].get(name, "")
        typer.echo(f"{name:<10}{readable(value):>12}  {readable(lo)} to {readable(hi)}  {how}")
    typer.echo("")
    for name in ("objective", "residual", "condition", "lack_of_fit", "rows", "rows_used", "clusters", "cluster_kind"):
        typer.echo(f"{name:<14}{readable(result[name])}")
    for flag in result["flags"] or ("none",):
        typer.echo(f"{'flag':<14}{flag}")


def draw(figure: Figure, fit: LawFit, observed: Observations) -> None:
    """Points, fit and band, residuals underneath: against t, a curve a configuration, or against the fitted loss for a law without t."""
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ratio = observed.loss / fit.at(observed.x) - 1
    if "t" in observed.x:
        configs = np.unique(observed.config)
        shown = configs[np.unique(np.linspace(0, configs.size - 1, CURVES).round().astype(int))]
        for i, config in enumerate(shown):
            rows = np.flatnonzero(observed.config == config)
            rows = rows[np.argsort(observed.x["t"][rows])]
            _curve(top, below, fit, {k: v[rows] for k, v in observed.x.items()}, observed.loss[rows], f"C{i}")
        top.set(yscale="log", ylabel="loss")
        below.set(xscale="log", xlabel="t")
        top.legend(frameon=False, fontsize="small", ncols=2)
    else:
        at = fit.at(observed.x)
        order = np.argsort(at)
        low, high = fit.band(observed.x)
        top.plot(at, observed.loss, ".", markersize=3, color="C0", alpha=0.6)
        top.plot(at[order], at[order], color="C3", label=f"{fit.law.name}: {fit.law.formula}")
        top.fill_between(at[order], low[order], high[order], color="C3", alpha=0.25, linewidth=0)
        below.plot(at, ratio, ".", markersize=3, color="C0", alpha=0.6)
        below.fill_between(
            at[order], (low / at - 1)[order], (high / at - 1)[order], color="C3", alpha=0.25, linewidth=0
        )
        top.set(ylabel="measured loss")
        below.set(xlabel="fitted loss")
        top.legend(frameon=False)
    below.axhline(0, color="0.3", linewidth=1)
    spread = 1.2 * float(np.quantile(np.abs(ratio), 0.99)) or 1e-3
    below.set(ylabel="loss / fit − 1", ylim=(-spread, spread))
    top.set_title(", ".join(f"{k} = {v:.4g}" for k, v in fit.parameters.items()), fontsize="small")


def _curve(top: Any, below: Any, fit: LawFit, x: Mapping[str, Any], loss: Any, color: str) -> None:
    t = np.geomspace(x["t"].min(), x["t"].max(), 100)
    grid = {name: t if name == "t" else np.full(t.size, values[0]) for name, values in x.items()}
    line = fit.at(grid)
    low, high = fit.band(grid)
    label = ", ".join(f"{name} = {values[0]:g}" for name, values in x.items() if name != "t")
    top.plot(x["t"], loss, ".", markersize=3, color=color, alpha=0.5)
    top.plot(t, line, color=color, linewidth=1, label=label)
    below.plot(x["t"], loss / fit.at(x) - 1, ".", markersize=3, color=color, alpha=0.5)
    for axes, scale, shift in ((top, 1.0, 0.0), (below, 1 / line, -1.0)):
        axes.fill_between(t, low * scale + shift, high * scale + shift, color=color, alpha=0.25, linewidth=0)
