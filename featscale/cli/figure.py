"""`featscale figure`: tables and figures of finished runs, measured beside predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featscale.cli.output import Json, emit
from featscale.errors import require

RunsFolder = Annotated[Path, typer.Option("--runs", help="The folder of runs.", envvar="FEATSCALE_RUNS")]
FIGURES = ("demo",)


def figure(
    name: Annotated[str, typer.Argument(help="One of: demo; or all.")],
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
    for one in FIGURES if name == "all" else (name,):
        path = output or runs / f"{one}.png"
        show(one, runs, path / f"{one}.png" if name == "all" and output else path, as_json)


def show(name: str, runs: Path, output: Path, as_json: bool) -> None:
    """Print the table of the demo's runs and write its figure."""
    from featscale.figures import demo

    result = demo.data(demo.load(runs / name))
    demo.save(result, output)
    rows = [vars(line) for line in result.lines]
    emit({"figure": output, "exponents": rows}, as_json, lambda _: _table(result.lines, output))


def _table(lines: list, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "γ", "measured", "theory here", "limit", "verdict", "remarks")
    for line in lines:
        low, high = line.interval
        measured = f"{line.measured:.3f} [{low:.3f}, {high:.3f}]"
        table.add_row(
            line.task,
            f"{line.gamma:g}",
            measured,
            f"{line.theory:.3f}",
            f"{line.limit:.3f}",
            line.verdict,
            "; ".join(line.flags),
        )
    console = Console()
    console.print(table)
    console.print(
        "measured: slope with 95 % interval over seeds, in the window that the figure states; theory here: the same fit to the flow at this"
    )
    console.print(
        "width; limit: the exponent as width and time grow. agrees: the interval lies within the margin of theory here."
    )
    console.print(f"figure: {output}", markup=False)
