"""Image runs: test loss of lazy and rich networks against flow time, with their local exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import t as student

from featscale.errors import require
from featscale.figures.demo import Run
from featscale.fits.curve import CurveFit, fit_curve

Array = NDArray[np.float64]
LEVEL = 0.95
SCALARS = ("steps", "seeds", "precision", "rows_per_decade")


@dataclass(frozen=True)
class Curve:
    """The runs of one richness: t > 0, mean test loss over seeds and its standard error, shape (n,), the fit in the window, and that of all rows."""

    gamma: float
    t: Array
    loss: Array
    error: Array
    accuracy: float
    fit: CurveFit
    whole: CurveFit


@dataclass(frozen=True)
class Gain:
    """Exponent of the richest runs minus that of the laziest: mean over the seeds both have, and its Student-t interval (NaN for one seed)."""

    gammas: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    seeds: tuple[Any, ...]


@dataclass(frozen=True)
class Images:
    """All that the figure shows; gain is None for one richness."""

    curves: list[Curve]
    gain: Gain | None


def data(runs: Sequence[Run], window: tuple[float, float] | None = None) -> Images:
    """Curves and exponents from finished image runs, those of one richness and different seeds taken together.

    Arguments: window of flow time for the exponents; None: the last decade of the shortest run.
    Raises: BadInput if there is no run, or seeds of one richness differ in anything else.
    """
    require(
        len(runs) > 0, "runs", "none finished", "the runs of an image experiment, by python train.py -m experiment=…"
    )
    groups: dict[float, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.gamma):
        groups.setdefault(run.gamma, []).append(run)
    for gamma, group in groups.items():
        # A run's row of the table also holds its results; its configuration is what has a group, and these.
        sciences = [{key: v for key, v in run.science.items() if "." in key or key in SCALARS} for run in group]
        alike = all(science == sciences[0] for science in sciences)
        require(alike, "runs", f"gamma = {gamma:g}", "runs that differ in gamma and seed only; name one experiment's")
    end = min(float(run.curve["t"].to_numpy().max()) for run in runs)
    curves = [_curve(gamma, group, window or (end / 10, end)) for gamma, group in groups.items()]
    return Images(curves, gain(curves[0], curves[-1]) if len(curves) > 1 else None)


def _curve(gamma: float, group: list[Run], window: tuple[float, float]) -> Curve:
    """The runs of one richness as one curve."""
    whole = Run(group[0].science, pl.concat([run.curve for run in group], how="diagonal"))
    rows = whole.curve.filter(pl.col("t") > 0)
    t, loss, seed = (rows[name].to_numpy() for name in ("t", "loss", "seed"))
    fit, all_rows = (fit_curve(t, loss, seed, window=span) for span in (window, (t.min(), t.max())))
    last = rows.filter(pl.col("t") == pl.col("t").max())
    mean: Any = last["accuracy"].mean() if "accuracy" in last.columns else float("nan")
    return Curve(gamma, *whole.mean(), accuracy=float(mean), fit=fit, whole=all_rows)


def gain(lazy: Curve, rich: Curve) -> Gain:
    """The difference of two curves' exponents, seed by seed: seeds share their data and their initial draw, so pairs vary less."""
    seeds = tuple(seed for seed in lazy.fit.seeds if seed in rich.fit.seeds)
    pairs = np.array(
        [rich.fit.per_seed[rich.fit.seeds.index(s)] - lazy.fit.per_seed[lazy.fit.seeds.index(s)] for s in seeds]
    )
    require(len(seeds) > 0, "seed", "none in common", "the same seeds at every richness")
    half = float("nan")
    if len(seeds) > 1:
        half = float(student.ppf((1 + LEVEL) / 2, len(seeds) - 1) * pairs.std(ddof=1) / len(seeds) ** 0.5)
    difference = float(pairs.mean())
    return Gain((lazy.gamma, rich.gamma), difference, (difference - half, difference + half), seeds)


def draw(figure: Figure, images: Images, title: str) -> None:
    """Two panels: test loss with bands of two standard errors, and local exponents."""
    losses, slopes = figure.subplots(1, 2)
    for index, curve in enumerate(images.curves):
        label = f"γ = {curve.gamma:g}: χ = {curve.fit.exponent:.2f}"
        _band(losses, curve.t, curve.loss, curve.error, f"C{index}", label)
        whole = curve.whole
        _band(slopes, whole.t_local, whole.chi_local, np.nan_to_num(whole.chi_local_stderr), f"C{index}", label)
    losses.set(xscale="log", yscale="log", xlabel="flow time t = η · step", ylabel="test loss", title=title)
    slopes.set(xscale="log", xlabel="flow time t", ylabel="local exponent −d log L/d log t", title="lazy beside rich")
    for axes in (losses, slopes):
        axes.title.set_fontsize(9)
        axes.legend(fontsize=7)


def _band(axes: Axes, t: Array, middle: Array, error: Array, color: str, label: str) -> None:
    axes.plot(t, middle, color=color, lw=1, label=label)
    axes.fill_between(t, middle - 2 * error, middle + 2 * error, color=color, alpha=0.25, lw=0)


def save(images: Images, path: Path, title: str) -> None:
    """Write the figure as PNG (or what the suffix says)."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    draw(figure, images, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
