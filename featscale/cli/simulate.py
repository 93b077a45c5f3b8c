"""`featscale simulate`: loss curves of the projected-gradient model, straight from the simulation."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from featscale.cli.crew import THREADS
from featscale.cli.output import Json, emit
from featscale.cli.theory import Alpha, Beta, Gamma, Modes

COLUMNS = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


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

    On one thread, unless OMP_NUM_THREADS is set: on a busy machine two take five to ten times as long.

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
    with Progress(
        *COLUMNS, console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        progress.add_task("steps", total=steps)
        kind: Literal["naive", "collapsed"] = "naive" if method == "naive" else "collapsed"
        with _threads():
            curves = curves_of(problem, steps, range(seed, seed + seeds), kind, progress=partial(_moved, progress))
    mean, error = curves.mean_and_error()
    emit(
        {"step": curves.step, "t": curves.t, "loss_mean": mean, "loss_sem": error, "K_mean": curves.K.mean(axis=1)},
        as_json,
        _render,
    )


def _threads() -> AbstractContextManager[None]:
    """One thread unless the environment says how many."""
    from featscale.training.threads import one_thread

    return nullcontext() if any(name in os.environ for name in THREADS) else one_thread()


def _moved(progress: Progress, step: int) -> None:
    progress.update(progress.task_ids[0], completed=step)


def _render(result: Mapping[str, Any]) -> None:
    table = Table("step", "t", "loss", "± error", "K")
    for row in zip(*result.values(), strict=True):
        table.add_row(str(row[0]), *(f"{value:.5g}" for value in row[1:]))
    Console().print(table)
