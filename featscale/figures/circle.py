"""Networks on the circle: measured exponents, lazy and rich, beside those of the exact infinite-width spectrum and their limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import stdtrit

from featscale.errors import require
from featscale.figures.demo import Run
from featscale.figures.demo import load as load_runs
from featscale.fits.curve import CurveFit, fit_curve
from featscale.spectra import SpectralMeasure, circle_exponents
from featscale.theory.exponents import chi, regime
from featscale.theory.flow import gradient_flow
from featscale.theory.neural_tangent import circle_measure

Array = NDArray[np.float64]
Interval = tuple[float, float]

EXPERIMENTS = ("circle_q", "circle_relu_power")
# Exponents are read over the last factor of this in flow time: before it the first modes are learned.
SPAN = 16.0
Q, K_MAX, WIDTH = "data.q", "data.k_max", "model.N"
# What runs must share, beside the task and the width, to be one task's.
SETTINGS = ("data.B", "optimizer.eta0", "steps")
DEPTH, Q_PHI, GAMMA, SEED = (
    "model.architecture.depth",
    "model.architecture.relu_power",
    "parameterization.gamma",
    "seed",
)


@dataclass(frozen=True)
class Richness:
    """The runs of one task, one width and one richness.

    exponent and its interval over seeds in the window. theory, the exponent in the same window of the flow driven by the infinite-width spectrum
    at γ². limit, as t grows. error, the largest relative difference of the mean curve from that flow in the window. t, loss (mean over seeds),
    flow, shape (n,).
    """

    gamma: float
    exponent: float
    interval: Interval
    theory: float
    limit: float
    error: float
    t: Array
    loss: Array
    flow: Array


@dataclass(frozen=True)
class Task:
    """One task at one width, lazy and rich, and the difference of their exponents with its interval over common seeds."""

    q: float
    q_phi: float
    N: int
    beta: float
    regime: str
    seeds: int
    window: Interval
    lazy: Richness
    rich: Richness
    difference: float
    difference_interval: Interval


def load(runs: Path) -> list[Run]:
    """The finished runs of both experiments below the folder `runs`."""
    return [run for name in EXPERIMENTS if (runs / name).is_dir() for run in load_runs(runs / name)]


def data(runs: list[Run]) -> list[Task]:
    """Every task and width that was trained at two or more richnesses, the smallest of which is called lazy and the largest rich.

    Raises: BadInput if there is none.
    Cost: one spectrum a task and depth, below a second at integer q_phi, seconds otherwise.
    """
    circle = sorted((run for run in runs if Q in run.science), key=_task_key)
    tasks = [_task(list(group)) for _, group in groupby(circle, key=_task_key)]
    found = [task for task in tasks if task is not None]
    require(len(found) > 0, "runs", "no pair of finished runs", "the runs of experiment=" + " or ".join(EXPERIMENTS))
    return found


def _task_key(run: Run) -> tuple[float, ...]:
    return tuple(float(run.science[name]) for name in (Q_PHI, Q, DEPTH, K_MAX, WIDTH, *SETTINGS))


def _task(runs: list[Run]) -> Task | None:
    gammas = sorted({run.gamma for run in runs})
    if len(gammas) < 2:
        return None
    q_phi, q, depth, k_max, N = _task_key(runs[0])[:5]
    measure, beta = circle_measure(q, int(k_max), int(depth), q_phi), circle_exponents(q, q_phi).beta
    by_seed = [_by_seed(run for run in runs if run.gamma == gamma) for gamma in (gammas[0], gammas[-1])]
    seeds = sorted(set(by_seed[0]) & set(by_seed[1]))
    if not seeds:
        return None
    lazy, rich = (
        _richness(gamma, [curves[seed] for seed in seeds], measure, beta)
        for gamma, curves in zip((gammas[0], gammas[-1]), by_seed, strict=True)
    )
    differences = rich[1].per_seed - lazy[1].per_seed
    mean, interval = _interval(differences)
    return Task(
        q=q,
        q_phi=q_phi,
        N=int(N),
        beta=beta,
        regime=regime(2 * q_phi, beta),
        seeds=len(seeds),
        window=lazy[1].covered,
        lazy=lazy[0],
        rich=rich[0],
        difference=mean,
        difference_interval=interval,
    )


def _by_seed(runs: Iterable[Run]) -> dict[int, pl.DataFrame]:
    return {int(run.science[SEED]): run.curve.filter(pl.col("t") > 0).sort("t") for run in runs}


def _richness(
    gamma: float, curves: list[pl.DataFrame], measure: SpectralMeasure, beta: float
) -> tuple[Richness, CurveFit]:
    """The fit over all seeds, which are numbered anew so that both richnesses have them in one order."""
    rows = pl.concat(curve.select("t", "loss", pl.lit(i).alias("seed")) for i, curve in enumerate(curves))
    end = float(rows["t"].to_numpy().max())
    window = (end / SPAN, end)
    fit = fit_curve(rows["t"].to_numpy(), rows["loss"].to_numpy(), rows["seed"].to_numpy(), window=window)
    mean = rows.group_by("t").agg(pl.col("loss").mean()).sort("t")
    t, loss = mean["t"].to_numpy(), mean["loss"].to_numpy()
    flow = gradient_flow(measure, gamma**2, t, rtol=1e-7).loss
    inside = t >= window[0]
    expected = fit_curve(t[inside], flow[inside], window=window).exponent
    error = float(np.max(np.abs(loss[inside] / flow[inside] - 1)))
    limit = chi(beta, rich=gamma >= 0.5)
    return Richness(gamma, fit.exponent, fit.interval, expected, limit, error, t, loss, flow), fit


def _interval(values: Array, level: float = 0.95) -> tuple[float, Interval]:
    """Mean and Student-t interval; NaN bounds for one value."""
    mean = float(values.mean())
    if values.size < 2:
        return mean, (float("nan"), float("nan"))
    half = float(stdtrit(values.size - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(values.size))
    return mean, (mean - half, mean + half)


def draw(figure: Figure, tasks: list[Task]) -> None:
    """Curves and exponents against β at the width that most tasks have, and what richness gains against width."""
    axes = figure.subplots(1, 3)
    wide = max(task.N for task in tasks)
    most = max((task.N for task in tasks), key=lambda N: sum(task.N == N for task in tasks))
    _curves(axes[0], [task for task in tasks if task.N == most and task.q_phi == 1])
    _exponents(axes[1], [task for task in tasks if task.N == most])
    _widths(axes[2], [task for task in tasks if task.q_phi == 1])
    figure.suptitle(f"ReLU networks on the circle, up to N = {wide}; lines: flow of the infinite-width spectrum at γ²")


def _curves(axes: Axes, tasks: list[Task]) -> None:
    for index, task in enumerate(tasks):
        for one, mark, line in ((task.lazy, "o", "-"), (task.rich, "^", "--")):
            label = f"β = {task.beta:.2g}" if one is task.lazy else None
            axes.plot(one.t[::4], one.loss[::4], mark, ms=3, color=f"C{index}", label=label)
            axes.plot(one.t, one.flow, line, lw=0.8, color=f"C{index}")
    axes.set(xscale="log", yscale="log", xlabel="flow time t = η · step", ylabel="test loss")
    if tasks:
        axes.set_title(f"○ — γ = {tasks[0].lazy.gamma:g}   △ - - γ = {tasks[0].rich.gamma:g}", fontsize=9)
        axes.legend(fontsize=6)


def _exponents(axes: Axes, tasks: list[Task]) -> None:
    beta = np.linspace(0.05, max((task.beta for task in tasks), default=1.5) + 0.1, 200)
    for rich, style in ((False, "k-"), (True, "k--")):
        axes.plot(
            beta, [chi(float(b), rich) for b in beta], style, lw=0.8, label="limit, rich" if rich else "limit, lazy"
        )
    for index, name in enumerate(("lazy", "rich")):
        sides: list[Richness] = [getattr(task, name) for task in tasks]
        betas = np.array([task.beta for task in tasks])
        half = [(one.interval[1] - one.interval[0]) / 2 for one in sides]
        axes.errorbar(
            betas, [one.exponent for one in sides], half, fmt="o", ms=4, color=f"C{index}", label=f"measured, {name}"
        )
        axes.plot(betas, [one.theory for one in sides], "x", color=f"C{index}", label=f"same window, theory, {name}")
    axes.set(xlabel="source exponent β", ylabel="time exponent")
    axes.legend(fontsize=6)


def _widths(axes: Axes, tasks: list[Task]) -> None:
    """The gain of the tasks trained at most widths, with the gain of the flow as a line."""
    by_q = {q: list(group) for q, group in groupby(tasks, key=lambda task: task.q)}
    most = max((len(group) for group in by_q.values()), default=0)
    for index, group in enumerate(group for group in by_q.values() if len(group) == most):
        gain, N = np.array([task.difference for task in group]), np.array([task.N for task in group])
        half = gain - np.array([task.difference_interval[0] for task in group])
        # Side by side, so that bars do not cover one another.
        axes.errorbar(N * 1.04**index, gain, half, fmt="o", ms=4, color=f"C{index}", label=f"β = {group[0].beta:.2g}")
        axes.axhline(group[-1].rich.theory - group[-1].lazy.theory, color=f"C{index}", lw=0.8)
    axes.axhline(0, color="0.6", lw=0.8, ls=":")
    axes.set_xscale("log")
    widths = sorted({task.N for task in tasks})
    axes.set_xticks(widths, [str(N) for N in widths])
    axes.minorticks_off()
    axes.set(xlabel="width N", ylabel="rich − lazy exponent", title="what richness gains against width")
    axes.legend(fontsize=7)


def save(tasks: list[Task], path: Path) -> None:
    """Write the figure as PNG (or what the suffix says)."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    draw(figure, tasks)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
