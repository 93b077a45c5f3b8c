"""The demo: measured exponents of the seed experiments beside theory, as a table and as a figure of four panels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featscale.errors import require
from featscale.fits.curve import fit_curve
from featscale.fits.verdict import verdict
from featscale.runs.directory import RunDirectory
from featscale.runs.table import runs_table
from featscale.spectra import PowerLaw
from featscale.theory.exponents import chi, exponents, regime
from featscale.theory.finite_width import finite_width_measure
from featscale.theory.flow import gradient_flow

Array = NDArray[np.float64]

# Flow times between which the exponents are read: after the first modes, before the width is felt.
WINDOW = (2.0, 20.0)
# A measured exponent agrees with theory at its own width when its whole interval is this close.
MARGIN = 0.05
GAMMA, BETA, WIDTH, ALPHA, MODES = "parameterization.gamma", "data.beta", "model.N", "data.alpha", "data.M"


@dataclass(frozen=True)
class Series:
    """One run's curve: t and mean loss over seeds with its standard error, shape (n,); theory at the same times, or None."""

    label: str
    t: Array
    loss: Array
    error: Array
    theory: Array | None


@dataclass(frozen=True)
class Line:
    """One line of the table: an exponent as measured, what theory says at this width and window, and its limit in N and t."""

    regime: str
    law: str
    alpha: float
    beta: float
    gamma: float
    measured: float
    interval: tuple[float, float]
    theory: float
    limit: float
    verdict: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Demo:
    """All that the figure shows."""

    lines: list[Line]
    gammas: list[Series]
    regimes: list[Series]
    bottleneck: list[Series]
    plateau: tuple[Array, Array, Array, Array] | None
    images: list[Series]


@dataclass(frozen=True)
class Run:
    """A finished run: its flattened science configuration and its curve (columns step, t, seed, loss, …)."""

    science: dict[str, Any]
    curve: pl.DataFrame

    @property
    def task(self) -> PowerLaw:
        """The task of a solvable run."""
        return PowerLaw(self.science[ALPHA], self.science[BETA], self.science[MODES])

    @property
    def gamma(self) -> float:
        """Richness."""
        return float(self.science[GAMMA])

    def mean(self) -> tuple[Array, Array, Array]:
        """t > 0, mean loss over seeds and its standard error (0 for one seed), each of shape (n,)."""
        rows = (
            self.curve.filter(pl.col("t") > 0)
            .group_by("t")
            .agg(pl.col("loss").mean(), (pl.col("loss").std() / pl.len().sqrt()).fill_null(0.0).alias("error"))
            .sort("t")
        )
        return rows["t"].to_numpy(), rows["loss"].to_numpy(), rows["error"].to_numpy()


def load(folder: Path, only: Collection[str] | None = None) -> list[Run]:
    """The finished runs below `folder`; diverged and failed ones have no exponent and stay in `featscale runs list`.

    Arguments: only, hashes of the runs wanted; None for all of them.
    """
    table = runs_table(folder)
    if only is not None:
        table = table.filter(pl.col("hash").is_in(list(only)))
    return [
        Run(
            {key: value for key, value in row.items() if value is not None},
            RunDirectory(Path(row["path"])).read_curve(),
        )
        for row in table.filter(pl.col("status") == "done").iter_rows(named=True)
    ]


def data(runs: list[Run]) -> Demo:
    """All numbers of the demo from its finished runs.

    Cost: one finite-width spectral measure and one flow a run, about a second each.
    """
    require(len(runs) > 0, "runs", "none finished", "the runs of `make demo`")
    solvable = sorted((run for run in runs if ALPHA in run.science), key=lambda run: (run.science[BETA], run.gamma))
    wide = max((run.science[WIDTH] for run in solvable), default=0)
    at_full_width = [run for run in solvable if run.science[WIDTH] == wide]
    narrow = sorted((run for run in solvable if run.science[WIDTH] < wide), key=lambda run: run.science[WIDTH])
    betas = sorted({run.science[BETA] for run in at_full_width})
    hardest = betas[0] if betas else None
    sweep = [run for run in at_full_width if run.science[BETA] == hardest]
    regimes = [run for run in at_full_width if run.gamma in (0.0, 1.0)]
    lines = [time_exponent(run) for run in at_full_width]
    plateau = plateaus(narrow) if len(narrow) >= 3 else None
    if plateau is not None:
        lines.append(width_exponent(narrow))
    lines += [image_exponent(run) for run in sorted(runs, key=lambda run: run.gamma) if ALPHA not in run.science]
    return Demo(
        lines=lines,
        gammas=[series(run, f"γ = {run.gamma:g}") for run in sweep],
        regimes=[
            series(run, f"{regime(run.science[ALPHA], run.science[BETA])}, {'rich' if run.gamma else 'lazy'}")
            for run in regimes
        ],
        bottleneck=[series(run, f"N = {run.science[WIDTH]}") for run in narrow],
        plateau=plateau,
        images=[
            Series(f"γ = {run.gamma:g}", *run.mean(), theory=None)
            for run in sorted(runs, key=lambda run: run.gamma)
            if ALPHA not in run.science
        ],
    )


def series(run: Run, label: str) -> Series:
    """The run's mean curve, and the flow at its width beside it."""
    t, loss, error = run.mean()
    return Series(label, t, loss, error, theory(run, t))


def theory(run: Run, t: Array) -> Array:
    """Loss of gradient flow at the run's width, from the deterministic spectral measure."""
    measure = finite_width_measure(run.task, run.science[WIDTH])
    return gradient_flow(measure, run.gamma, t, rtol=1e-7).loss


def time_exponent(run: Run) -> Line:
    """The time exponent in the window, measured, in theory at the same width and window, and in its limit."""
    curve = run.curve.filter(pl.col("t") > 0)
    fit = fit_curve(curve["t"].to_numpy(), curve["loss"].to_numpy(), curve["seed"].to_numpy(), window=WINDOW)
    t = np.geomspace(*WINDOW, 40)
    expected = fit_curve(t, theory(run, t), window=WINDOW).exponent
    alpha, beta = run.science[ALPHA], run.science[BETA]
    limit, agreement = chi(beta, rich=run.gamma > 0), verdict(fit, expected, MARGIN)
    names = (regime(alpha, beta), "t^-χ", alpha, beta, run.gamma)
    return Line(*names, fit.exponent, fit.interval, expected, limit, agreement, fit.flags)


def image_exponent(run: Run) -> Line:
    """The time exponent of an image run over its last decade and a half; of its α and β nothing is known here, so nothing is predicted."""
    t, loss, _ = run.mean()
    fit = fit_curve(t, loss, window=(max(t[-1] / 10**1.5, t[t > 0][0]), t[-1]))
    unknown = float("nan")
    return Line(
        "MNIST, CNN", "t^-χ", unknown, unknown, run.gamma, fit.exponent, fit.interval, unknown, unknown, "–", fit.flags
    )


def plateaus(narrow: list[Run]) -> tuple[Array, Array, Array, Array]:
    """Widths, mean final loss, its standard error, and the plateau of theory (the atom), each of shape (n,)."""
    rows = []
    for run in narrow:
        _, loss, error = run.mean()
        rows.append((run.science[WIDTH], loss[-1], error[-1], finite_width_measure(run.task, run.science[WIDTH]).atom))
    N, loss, error, atom = np.array(rows, dtype=np.float64).T
    return N, loss, error, atom


def width_exponent(narrow: list[Run]) -> Line:
    """The exponent of the final loss in N, over the seeds, beside that of the plateaus of theory and N^−α min(1, β)."""
    finals = pl.concat(
        run.curve.filter(pl.col("step") == pl.col("step").max()).select(
            pl.lit(float(run.science[WIDTH])).alias("N"), "loss", "seed"
        )
        for run in narrow
    )
    N, _, _, atom = plateaus(narrow)
    window = (float(N[0]), float(N[-1]))
    fit = fit_curve(finals["N"].to_numpy(), finals["loss"].to_numpy(), finals["seed"].to_numpy(), window=window)
    expected = fit_curve(N, atom, window=window).exponent
    alpha, beta = narrow[0].science[ALPHA], narrow[0].science[BETA]
    names = (regime(alpha, beta), "N^-r", alpha, beta, narrow[0].gamma)
    limit, agreement = exponents(alpha, beta).width_exponent, verdict(fit, expected, 2 * MARGIN)
    return Line(*names, fit.exponent, fit.interval, expected, limit, agreement, fit.flags)


def draw(figure: Figure, demo: Demo) -> None:
    """Four panels on `figure`: richness, regimes, bottleneck, images. Points are measured (bars: standard error), lines are theory."""
    axes = figure.subplots(2, 2).ravel()
    curves(axes[0], demo.gammas, "Hard task (β = 0.5): richness bends the exponent")
    curves(axes[1], demo.regimes, "Only hard tasks gain an exponent")
    curves(axes[2], demo.bottleneck, "Width bottleneck (rich, β = 0.5)")
    if demo.plateau is not None:
        axes[2].set_ylim(bottom=demo.plateau[1].min() / 4)
        inset = axes[2].inset_axes((0.05, 0.06, 0.32, 0.32))
        N, loss, error, atom = demo.plateau
        inset.errorbar(N, loss, error, fmt="o", ms=3, color="k", lw=1)
        inset.plot(N, atom, "k-", lw=1)
        inset.set(xscale="log", yscale="log", xticks=[], yticks=[])
        inset.minorticks_off()
        inset.set_title("plateau against N", fontsize=7)
    if demo.images:
        curves(axes[3], demo.images, "CNN on MNIST: test loss")
    else:
        axes[3].set_axis_off()
        axes[3].text(0.5, 0.5, "MNIST: no data found\n(set FEATSCALE_DATA)", ha="center", va="center")


def curves(axes: Axes, group: list[Series], title: str) -> None:
    """Measured points with standard errors and theory lines on log axes."""
    for index, one in enumerate(group):
        color, shown = f"C{index}", slice(None, None, 4)
        axes.errorbar(
            one.t[shown], one.loss[shown], one.error[shown], fmt="o", ms=3, lw=1, color=color, label=one.label
        )
        if one.theory is not None:
            axes.plot(one.t, one.theory, color=color, lw=1)
        else:
            axes.plot(one.t, one.loss, color=color, lw=0.5)
    axes.set(xscale="log", yscale="log", xlabel="flow time t = η · step", ylabel="test loss", title=title)
    axes.title.set_fontsize(9)
    if group:
        axes.legend(fontsize=7)


def save(demo: Demo, path: Path) -> None:
    """Write the figure as PNG (or what the suffix says)."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    draw(figure, demo)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
