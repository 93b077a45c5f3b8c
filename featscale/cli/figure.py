"""`featscale figure`: tables and figures of finished runs, measured beside predicted."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from featscale.cli.figure_images import show_images, show_modes
from featscale.cli.output import Json, emit
from featscale.errors import BadInput, require

if TYPE_CHECKING:
    from featscale.figures import circle, demo

RunsFolder = Annotated[Path, typer.Option("--runs", help="The folder of runs.", envvar="FEATSCALE_RUNS")]
FIGURES = ("demo", "circle", "mnist_cnn", "cifar5m_cnn", "circle_modes")


def figure(
    name: Annotated[str, typer.Argument(help="One of: demo, circle, mnist_cnn, cifar5m_cnn, circle_modes; or all.")],
    runs: RunsFolder = Path("runs"),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File, or folder for all; default runs/NAME.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a figure from the runs of that name and print its table.

    Example: featscale figure demo -o demo.png
    """
    require(name in (*FIGURES, "all"), "NAME", name, "one of " + ", ".join((*FIGURES, "all")))
    require(not (name == "all" and as_json), "NAME", name, "one figure with --json, which prints one object")
    missing = []
    for one in FIGURES if name == "all" else (name,):
        path = output or runs / f"{one}.png"
        drawn = {"demo": show, "circle": show_circle, "circle_modes": show_modes}.get(one, show_images)
        try:
            drawn(one, runs, path / f"{one}.png" if name == "all" and output else path, as_json)
        except BadInput as error:
            if name != "all":
                raise
            missing.append(one)
            sys.stderr.write(f"{one}: left out: {error}\n")
    require(len(missing) < len(FIGURES), "runs", runs, "a folder with the finished runs of a figure")


def show(name: str, runs: Path, output: Path, as_json: bool, only: Collection[str] | None = None) -> None:
    """Print the table of the demo's runs (all, or those with the hashes of `only`) and write its figure."""
    from featscale.figures import demo

    result = demo.data(demo.load(runs / name, only))
    demo.save(result, output)
    rows = [vars(line) for line in result.lines]
    emit({"figure": output, "exponents": rows}, as_json, lambda _: _table(result.lines, output))


def show_circle(name: str, runs: Path, output: Path, as_json: bool) -> None:
    """Print the exponents of the circle's runs and write their figure."""
    from featscale.figures import circle

    del name
    tasks = circle.data(circle.load(runs))
    circle.save(tasks, output)
    arrays = ("t", "loss", "flow")
    rows = [
        vars(task)
        | {
            side: {key: value for key, value in vars(one).items() if key not in arrays}
            for side, one in (("lazy", task.lazy), ("rich", task.rich))
        }
        for task in tasks
    ]
    emit({"figure": output, "tasks": rows}, as_json, lambda _: _circle_table(tasks, output))


def _circle_table(tasks: Sequence[circle.Task], output: Path) -> None:
    table = Table("q", "q_φ", "β", "N", "γ", "measured", "95 % interval", "theory", "limit", "off", "rich − lazy")
    for task in tasks:
        low, high = task.difference_interval
        gain = f"{task.difference:.3f} [{low:.3f}, {high:.3f}]"
        for one in (task.lazy, task.rich):
            lo, hi = one.interval
            measured = (f"{one.exponent:.3f}", f"[{lo:.3f}, {hi:.3f}]", f"{one.theory:.3f}", f"{one.limit:.3f}")
            names = (f"{task.q:g}", f"{task.q_phi:g}", f"{task.beta:.3g}", str(task.N), f"{one.gamma:g}")
            table.add_row(*names, *measured, f"{one.error:.1%}", gain if one is task.rich else "")
    console = Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    console.print(table)
    lo, hi = tasks[0].window
    console.print(
        f"measured: slope for t in [{lo:g}, {hi:g}] (first task), interval over seeds. theory: the same fit to gradient flow of the infinite-width\n"
        "spectrum at γ². limit: as t grows. off: largest relative difference of the mean curve from that flow. rich − lazy: over common seeds."
    )
    console.print(f"figure: {output}", markup=False)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _table(lines: Sequence[demo.Line], output: Path) -> None:
    from featscale.figures.demo import MARGIN, WINDOW

    table = Table("task", "law", "α", "β", "γ", "measured", "95 % interval", "theory", "limit", "verdict")
    for line in lines:
        alpha, beta, gamma, theory, limit = map(_number, (line.alpha, line.beta, line.gamma, line.theory, line.limit))
        low, high = line.interval
        interval = "one seed" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"
        cells = (line.law, alpha, beta, gamma, f"{line.measured:.3f}", interval, theory, limit, line.verdict)
        table.add_row(line.regime, *cells)
    console = Console(width=None if sys.stdout.isatty() else 110, soft_wrap=True)
    console.print(table)
    lo, hi = WINDOW
    console.print(
        f"measured: slope for t in [{lo:g}, {hi:g}], or over all widths; interval over seeds. theory: the same fit to gradient flow at this width.\n"
        f"limit: as width and time grow. agrees: the whole interval within {MARGIN:g} of theory ({2 * MARGIN:g} for N)."
    )
    for line in lines:
        for flag in line.flags:
            console.print(f"{line.regime}, {line.law}, γ = {line.gamma:g}: {flag}", markup=False)
    console.print(f"figure: {output}", markup=False)
