"""What theory computed, drawn: curves on log axes, and the phase diagram."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from featscale.errors import BadInput
from featscale.theory.frontier import phase


def save_curves(path: Path, x: ArrayLike, panels: Mapping[str, ArrayLike], xlabel: str, title: str) -> None:
    """One panel for each entry of `panels` (its name is the y label) against x > 0, log axes; points without a positive value are left out."""
    figure = Figure(figsize=(4.5 * len(panels), 3.8), layout="constrained")
    for axes, (label, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        x_values, y_values = np.asarray(x, np.float64), np.asarray(values, np.float64)
        shown = (x_values > 0) & (y_values > 0)
        axes.plot(x_values[shown], y_values[shown], "o-", ms=3)
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=label)
    figure.suptitle(title, fontsize=9)
    _save(figure, path)


def save_phases(path: Path, alpha: float, beta: float, rich: bool, batch_noise: bool) -> None:
    """The (α, β) plane coloured by the two terms that balance on the frontier, with the asked task marked."""
    alphas, betas = np.linspace(1.05, max(4.0, alpha), 60), np.linspace(0.05, max(3.0, beta), 60)
    names: dict[tuple[str, str], int] = {}
    grid = np.array(
        [[names.setdefault(phase(a, b, rich, batch_noise).balance, len(names)) for a in alphas] for b in betas]
    )
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = mpl.color_sequences["Pastel1"][: len(names)]
    cmap, edges = ListedColormap(colours), np.arange(len(names) + 1) - 0.5
    drawn = axes.pcolormesh(alphas, betas, grid, cmap=cmap, norm=BoundaryNorm(edges, cmap.N))
    bar = figure.colorbar(drawn, ticks=np.arange(len(names)))
    bar.ax.set_yticklabels([f"{one}\n= {other}" for one, other in names], fontsize=7)
    axes.plot([alpha], [beta], "k*")
    axes.set(
        xlabel="capacity α", ylabel="source β", title=f"terms that balance at C = N t, {'rich' if rich else 'lazy'}"
    )
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise BadInput("plot", path, f"a file that can be written, .png, .pdf or .svg ({error})") from None
