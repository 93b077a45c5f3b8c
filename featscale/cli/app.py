"""The `featscale` command: theory, simulation, fits, runs and figures, each with --json and --help."""

from __future__ import annotations

import sys

import typer

from featscale.cli import fit, fit_frontier, fit_law, runs, theory
from featscale.cli.demo import demo
from featscale.cli.doctor import doctor
from featscale.cli.figure import figure
from featscale.cli.output import run
from featscale.cli.simulate import simulate
from featscale.cli.train import train
from featscale.cli.worker import worker

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    help="featscale: whether, when and by how much feature learning bends a neural scaling law.",
)
app.add_typer(theory.app, name="theory")
app.command()(simulate)
# Its modules register their commands with the group when they are imported.
assert fit_law.app is fit_frontier.app is fit.app
app.add_typer(fit.app, name="fit")
app.add_typer(runs.app, name="runs")
app.command()(worker)
app.command()(figure)
app.command(context_settings={"ignore_unknown_options": True})(train)
app.command()(demo)
app.command()(doctor)


def main() -> None:
    """Entry of the console script."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
