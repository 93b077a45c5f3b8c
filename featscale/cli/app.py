"""The `featscale` command: theory, simulation, fits, runs and figures, each with --json and --help."""

from __future__ import annotations

import sys

import typer

from featscale.cli import fit, runs, theory
from featscale.cli.doctor import doctor
from featscale.cli.output import run
from featscale.cli.simulate import simulate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    help="featscale: whether, when and by how much feature learning bends a neural scaling law.",
)
app.add_typer(theory.app, name="theory")
app.command()(simulate)
app.add_typer(fit.app, name="fit")
app.add_typer(runs.app, name="runs")
app.command()(doctor)


def main() -> None:
    """Entry of the console script."""
    sys.exit(run(app))
