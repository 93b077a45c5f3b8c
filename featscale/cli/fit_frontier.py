"""`featscale fit frontier` and `featscale fit next`: the compute-optimal frontier, and what to run next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from featscale.cli.fit import app
from featscale.cli.fit_input import Columns, Draws, File, Gamma, Level, Plot, Renamed, Window, of_gamma, plot_path, read
from featscale.cli.output import Json, emit, numbers, readable
from featscale.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from featscale.fits.frontier import FrontierFit
    from featscale.fits.observations import Observations

COLORS = {"envelope": "C0", "isoflop": "C1", "parametric": "C3"}
CURVES = 12


@app.command("frontier")
def frontier_command(
    file: File,
    floor: Annotated[float, typer.Option(help="Irreducible loss to subtract first, >= 0.")] = 0.0,
    level: Level = 0.95,
    draws: Draws = 400,
    window: Window = None,
    gamma: Gamma = None,
    column: Renamed = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Exponents of the compute-optimal frontier in C = N t, in three ways: envelope, IsoFLOP slices, fitted sum.

    FILE has N, t, loss and may have seed. L* ~ C^-loss_exponent, N* ~ C^width_exponent, t* ~ C^time_exponent. All three see the same
    resampled seeds, so their differences are tested too: "compatible", "differ", or "untested" without replicates.

    Example: featscale fit frontier runs/widths --gamma 1 --plot frontier.png
    """
    plot_path(plot)
    require(0 <= floor < math.inf, "floor", floor, "a number >= 0")

    from featscale.fits.frontier import fit_frontier

    columns = of_gamma(read(file, ["N", "t", "loss"], column), gamma)
    observed = _observed(columns, window, floor)
    fit = fit_frontier(observed, floor=floor, level=level, draws=draws)
    law = {name: fit.law.parameters[name] for name in fit.law.parameters}
    result = {name: value for name, value in asdict(replace(fit, law=None)).items() if name != "law"} | {"law": law}  # type: ignore[arg-type]
    if plot is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 7.2), layout="constrained")
        draw(figure, fit, observed)
        figure.savefig(plot, dpi=150)
        result["plot"] = plot
    emit(result, as_json, render)


@app.command("next")
def next_command(
    file: File,
    budget: Annotated[float, typer.Option(help="Compute to spend, in units of N t, > 0.")],
    law: Annotated[str, typer.Option(metavar="NAME", help="Law of t and N to fit.")] = "sum",
    target: Annotated[str, typer.Option(help="Exponent whose interval is to shrink.")] = "chi",
    criterion: Annotated[str, typer.Option(metavar="c|D", help="Variance of the target, or of all parameters.")] = "c",
    count: Annotated[int, typer.Option(help="How many proposals, >= 1.")] = 5,
    window: Window = None,
    column: Renamed = None,
    as_json: Json = False,
) -> None:
    """Which (N, t, gamma) to run next, and with how many seeds, to shrink the interval of an exponent most.

    FILE has N, t, loss and may have seed and gamma; with several gammas the variance is that of the sum over them, which is that of a
    lazy-minus-rich difference. The noise of a further run is that of the runs there are.

    Example: featscale fit next runs/widths --budget 1e6 --target r
    """
    from featscale.fits.next_run import next_runs

    columns = read(file, ["N", "t", "loss"], column)
    groups = {math.nan: columns}
    if "gamma" in columns:
        groups = {float(g): of_gamma(columns, float(g)) for g in np.unique(columns["gamma"])}
    runs = next_runs(
        {g: _observed(part, window, 0.0) for g, part in groups.items()},
        budget,
        law=law,
        target=target,
        criterion=criterion,  # type: ignore[arg-type]
        count=count,
    )
    emit(
        {"budget": budget, "law": law, "target": target, "criterion": criterion, "runs": [asdict(run) for run in runs]},
        as_json,
        _render_next,
    )


def _observed(columns: Columns, window: str | None, floor: float) -> Observations:
    from featscale.fits.observations import observe

    bounds = None if window is None else numbers(window, "window", "two numbers lo,hi with 0 < lo < hi")
    require(bounds is None or bounds.size == 2, "window", window, "two numbers lo,hi with 0 < lo < hi")
    observed = observe(columns, ("t", "N"), window=None if bounds is None else (float(bounds[0]), float(bounds[1])))
    least = float(observed.loss.min())
    require(floor < least, "floor", floor, f"below the smallest loss, {least:g}")
    return replace(observed, loss=observed.loss - floor)


def render(result: Mapping[str, Any]) -> None:
    """The three estimates as a table, the test, a flag a line."""
    typer.echo(f"{'':<12}{'L* ~ C^-':<28}{'N* ~ C^':<28}{'t* ~ C^':<28}optima")
    for method, found in result["estimates"].items():
        cells = []
        for name in ("loss", "width", "time"):
            lo, hi = found[f"{name}_interval"]
            cells.append(f"{found[f'{name}_exponent']:.4f} ({lo:.4f} to {hi:.4f})")
        n = len(found["compute"])
        typer.echo(
            f"{method:<12}"
            + "".join(f"{cell:<28}" for cell in cells)
            + f"{n}, {int(sum(found['bracketed']))} bracketed"
        )
    typer.echo("")
    typer.echo(f"{'agree':<14}{result['agree']}, p = {readable(result['p_value'])}")
    for name in ("clusters", "cluster_kind"):
        typer.echo(f"{name:<14}{readable(result[name])}")
    for flag in result["flags"] or ("none",):
        typer.echo(f"{'flag':<14}{flag}")


def _render_next(result: Mapping[str, Any]) -> None:
    typer.echo(f"{'N':>8}{'t':>12}{'gamma':>8}{'seeds':>7}{'cost':>12}  half-width of {result['target']}: now, after")
    for run in result["runs"]:
        gamma = "" if math.isnan(run["gamma"]) else readable(run["gamma"])
        note = "  beyond what was measured" if run["extrapolates"] else ""
        typer.echo(
            f"{run['N']:>8g}{run['t']:>12.4g}{gamma:>8}{run['seeds']:>7}{run['cost']:>12.4g}  "
            f"{run['half_width_now']:.4g}, {run['half_width_after']:.4g}{note}"
        )


def draw(figure: Figure, fit: FrontierFit, observed: Observations) -> None:
    """Loss against compute with the optima, residuals of L* from its power law, and N* underneath."""
    top, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2))
    widths = np.unique(observed.x["N"])
    for N in widths[np.unique(np.linspace(0, widths.size - 1, CURVES).round().astype(int))]:
        rows = observed.x["N"] == N
        top.plot(N * observed.x["t"][rows], observed.loss[rows], ".", markersize=2, color="0.75")
    for method, found in fit.estimates.items():
        color = COLORS[method]
        if not math.isfinite(found.loss_exponent):
            continue
        log_C = np.log(found.compute)
        centre = log_C.mean()
        for axes, values, slope, (lo, hi) in (
            (top, found.loss, -found.loss_exponent, found.loss_interval),
            (below, found.width, found.width_exponent, found.width_interval),
        ):
            inside = found.bracketed if method == "parametric" else np.ones(values.size, dtype=bool)
            style = "-" if method == "parametric" else "."
            name = f"{abs(slope):.4f} ({lo:.4f} to {hi:.4f}) {method}"
            axes.plot(found.compute[inside], values[inside], style, markersize=4, color=color, label=name)
            if not inside.all():
                axes.plot(found.compute, values, ":", linewidth=1, color=color)
            if math.isfinite(lo):
                line = np.exp(np.log(values).mean() + slope * (log_C - centre))
                edge = np.abs(hi - lo) / 2 * np.abs(log_C - centre)
                axes.fill_between(
                    found.compute, line * np.exp(-edge), line * np.exp(edge), color=color, alpha=0.2, linewidth=0
                )
        power = np.exp(np.log(found.loss).mean() - found.loss_exponent * (log_C - centre))
        middle.plot(found.compute, found.loss / power - 1, ".", markersize=3, color=color)
    middle.axhline(0, color="0.3", linewidth=1)
    top.set(xscale="log", yscale="log", ylabel="loss")
    middle.set(ylabel="L* / power − 1")
    below.set(yscale="log", xlabel="compute C = N t", ylabel="N*")
    for axes in (top, below):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
