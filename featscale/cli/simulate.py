"""`featscale simulate`: loss curves of the projected-gradient model, straight from the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from featscale.cli.output import Json, emit
from featscale.cli.theory import Alpha, Beta, Gamma, Modes


def simulate(
    alpha: Alpha,
    beta: Beta,
    gamma: Gamma,
    eta: Annotated[float, typer.Option(help="Learning rate, > 0; flow time is eta times step.")],
    width: Annotated[int, typer.Option(help="Width N, at most the number of modes.")],
    modes: Modes,
    steps: Annotated[int, typer.Option(help="Number of steps T.")],
    batch: Annotated[str, typer.Option(help="Fresh samples a step, or inf for the population gradient.")] = "inf",
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the label noise.")] = 0.0,
    method: Annotated[str, typer.Option(help="collapsed (fast, exact) or naive (the N x M definition).")] = "collapsed",
    as_json: Json = False,
) -> None:
    """Mean loss over seeds and its standard error on a log grid of steps.

    Example: featscale simulate --alpha 1.5 --beta 0.5 --gamma 1 --eta 0.2 --width 256 --modes 100000 --steps 2000 --seeds 4
    """
    from featscale.errors import BadInput, require
    from featscale.spectra import PowerLaw

    try:
        B = float(batch)
    except ValueError:
        raise BadInput("batch", batch, "an integer >= 1, or inf") from None
    require(steps >= 1, "steps", steps, "an integer >= 1")
    require(seeds >= 1, "seeds", seeds, "an integer >= 1")
    require(seed >= 0, "seed", seed, "an integer >= 0")
    require(method in ("naive", "collapsed"), "method", method, "naive or collapsed")

    from featscale.simulate.curves import simulate as curves_of
    from featscale.simulate.problem import Problem

    problem = Problem(PowerLaw(alpha, beta, modes), width, eta, gamma, B, sigma)
    curves = curves_of(problem, steps, range(seed, seed + seeds), "naive" if method == "naive" else "collapsed")
    mean, error = curves.mean_and_error()
    emit(
        {"step": curves.step, "t": curves.t, "loss_mean": mean, "loss_sem": error, "K_mean": curves.K.mean(axis=1)},
        as_json,
        _render,
    )


def _render(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "t", "loss", "± error", "K")
    for row in zip(*result.values(), strict=True):
        table.add_row(str(row[0]), *(f"{value:.5g}" for value in row[1:]))
    Console().print(table)
