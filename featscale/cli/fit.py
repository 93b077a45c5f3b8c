"""`featscale fit`: exponents of measured or predicted curves, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featscale.cli.output import Json, emit, numbers, readable
from featscale.errors import BadInput, require

if TYPE_CHECKING:
    from featscale.cli.fit_groups import Group
    from featscale.fits import CurveFit, Prediction

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

SUFFIXES = (".png", ".pdf", ".svg")
# Fields that are arrays along the curve, or say again what others say.
HIDDEN = ("t", "loss", "terms", "per_seed_terms", "known_floor")
SHOWN = ("exponent", "interval", "law", "window", "window_kind", "floor", "floor_kind", "spread", "seeds")


@app.callback()
def fit() -> None:
    """Exponents of measured or predicted curves, with intervals that come from the seeds."""


@app.command()
def curve(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="csv or parquet with columns t, loss[, seed], a run directory, or a folder of runs."
        ),
    ],
    window: Annotated[
        str | None,
        typer.Option(metavar="LO,HI", help="Fit t from LO to HI, in units of t. Default: where one law holds."),
    ] = None,
    floor: Annotated[
        str, typer.Option(metavar="zero|VALUE|free", help="Irreducible loss E: none, a known value, or fitted too.")
    ] = "zero",
    law: Annotated[
        str | None,
        typer.Option(
            metavar="one|two|broken",
            help="One power law; two, quoting the one that rules late; or the early one. Default: one in a given window, else as the curve bends.",
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Level of the interval, in (0, 1).")] = 0.95,
    predicted: Annotated[float | None, typer.Option(help="Exponent of theory to compare with; needs --margin.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Largest difference from the prediction that does not matter.")
    ] = None,
    predicted_curve: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Predicted t and loss (csv, parquet, or JSON of theory flow): sets the window, and its exponent there is the prediction.",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="T1,…", help="Predicted crossovers and ends of transients: stay well after them."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(metavar="T1,…", help="Predicted onsets of floors or finite size: stay well before them."),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column or configuration entry (gamma): differences of exponents, smallest value less each other, by common seeds.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw rows, fit, band and residuals here: .png, .pdf or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Exponent chi of loss = floor + amplitude t^-chi over a window of t.

    The interval comes from the scatter between seeds, so one seed has none. Read the flags before quoting the number: they tell of
    diverged seeds, short windows, an exponent that moves within the window, a floor the data do not determine. t is flow time (learning
    rate times steps) in a run's own table, or whatever unit the file has. With a prediction and --margin the verdict is "agrees" if
    the whole interval lies within predicted ± margin, "differs" if it lies wholly outside, else "undecided". A folder of runs is fitted
    configuration by configuration, the runs that differ in their seed only together.

    Example: featscale fit curve runs/hard_rich/3f9a --window 10,1000 --predicted 0.667 --margin 0.05 --plot fit.png

    Example: featscale fit curve runs/hard --pair gamma --plot all.png
    """
    bounds = None if window is None else numbers(window, "window", "two numbers lo,hi with 0 < lo < hi")
    expected = predicted is not None or predicted_curve is not None
    require(expected == (margin is not None), "margin", margin, "given together with a prediction, or neither")
    require(margin is None or margin > 0, "margin", margin, "a number > 0")
    _check_plot(plot)

    from featscale.cli.fit_groups import read_groups
    from featscale.fits.curve import checked

    asked, _, _ = checked(None if bounds is None else bounds.tolist(), floor, level, law)
    options: dict[str, Any] = {"window": asked, "floor": floor, "law": law, "level": level}
    options["prediction"] = _prediction(predicted_curve, after, before)
    groups = read_groups(file, [] if pair is None else [pair])
    fits = _fitted(groups, options)
    results = [_result(group, found, predicted, margin) for group, found in zip(groups, fits, strict=True)]
    result: dict[str, Any] = results[0] if len(groups) == 1 else {"groups": results}
    good = [(group, found) for group, found in zip(groups, fits, strict=True) if not isinstance(found, BadInput)]
    if pair is not None:
        result["differences"] = _differences(good, pair)
    if plot is not None:
        _plot(plot, good)
        result["plot"] = plot
    emit(result, as_json, _render if len(groups) == 1 else _render_groups)


def _prediction(curve: Path | None, after: str | None, before: str | None) -> Prediction | None:
    from featscale.cli.fit_groups import read_prediction
    from featscale.fits import Prediction

    if curve is None and after is None and before is None:
        return None
    times = (
        [] if text is None else numbers(text, name).tolist() for name, text in (("after", after), ("before", before))
    )
    return Prediction(None if curve is None else read_prediction(curve), *times)


def _fitted(groups: Sequence[Group], options: Mapping[str, Any]) -> list[CurveFit | BadInput]:
    """The fit of every group, or why there is none; BadInput where there is none at all."""
    from featscale.fits import fit_curve

    fits: list[CurveFit | BadInput] = []
    for group in groups:
        try:
            fits.append(fit_curve(group.t, group.loss, group.seed, **options))
        except BadInput as error:
            fits.append(error)
    errors = [found for found in fits if isinstance(found, BadInput)]
    if len(errors) == len(fits):
        raise errors[0]
    return fits


def _differences(good: Sequence[tuple[Group, CurveFit]], pair: str) -> list[dict[str, Any]]:
    from featscale.cli.fit_groups import matched
    from featscale.fits import paired

    fitted = {id(group): found for group, found in good}
    return [
        {"first": first.config, "second": second.config} | asdict(paired(fitted[id(first)], fitted[id(second)]))
        for first, second in matched([group for group, _ in good], pair)
    ]


def _check_plot(plot: Path | None) -> None:
    if plot is not None:
        require(plot.suffix in SUFFIXES, "plot", plot, f"a file that ends in {', '.join(SUFFIXES)}")
        require(plot.parent.is_dir(), "plot", plot, "a file in a folder that exists")


def _result(group: Group, found: CurveFit | BadInput, predicted: float | None, margin: float | None) -> dict[str, Any]:
    """What is reported of one group; of one that cannot be fitted the reason."""
    from featscale.fits import equivalence
    from featscale.fits.seed_intervals import wild_bootstrap

    named = {"config": dict(group.config), "runs": group.runs} if group.config or group.runs else {}
    if isinstance(found, BadInput):
        return named | {"error": str(found)}
    result = named | {name: value for name, value in asdict(found).items() if name not in HIDDEN}
    result["checks"] = found.checks | {"wild_bootstrap": wild_bootstrap(found.per_seed, found.level)}
    target = predicted if predicted is not None else found.predicted
    if target is not None and margin is not None:
        result |= asdict(equivalence(found, target, margin))
    return result


def _plot(path: Path, good: Sequence[tuple[Group, CurveFit]]) -> None:
    from featscale.cli.fit_plot import save
    from featscale.fits.resample import clean

    save(path, [(group.name, found, clean(group.t, group.loss, group.seed)) for group, found in good])


def _render(result: Mapping[str, Any]) -> None:
    """The result without its local exponents, other windows in a table, a flag a line."""
    tables = ("flags", "alternatives", "checks", "differences")
    shown = {name: value for name, value in result.items() if "local" not in name and name not in tables}
    width = max(map(len, shown))
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}  {readable(value)}")
    for name, interval in result["checks"].items():
        typer.echo(f"{'check':<{width}}  {name} {readable(interval)}")
    for row in result["alternatives"]:
        text = f"{row['name']}: {readable(row['exponent'])} in {readable(row['interval'])}, t {readable(row['window'])}"
        typer.echo(f"{'instead':<{width}}  {text}")
    for flag in result["flags"] or ("none",):
        typer.echo(f"{'flag':<{width}}  {flag}")


def _render_groups(result: Mapping[str, Any]) -> None:
    """A line for every group, its flags below it, then the differences."""
    for group in result["groups"]:
        typer.echo(", ".join(f"{name} {readable(value)}" for name, value in group["config"].items()) or "all runs")
        if "error" in group:
            typer.echo(f"  error: {group['error']}")
            continue
        for name in SHOWN + (("verdict", "predicted") if "verdict" in group else ()):
            typer.echo(f"  {name:<12} {readable(group[name])}")
        for flag in group["flags"]:
            typer.echo(f"  {'flag':<12} {flag}")
    for row in result.get("differences", ()):
        first, second = (_values(row[side]) for side in ("first", "second"))
        typer.echo(
            f"{first} less {second}: {readable(row['difference'])} in {readable(row['interval'])}, {len(row['seeds'])} seeds"
        )
        for flag in row["flags"]:
            typer.echo(f"  {'flag':<12} {flag}")


def _values(config: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{name.rsplit('.', 1)[-1]} {readable(value)}" for name, value in config.items()) + ")"
