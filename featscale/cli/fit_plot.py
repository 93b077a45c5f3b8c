"""The picture of `featscale fit curve`: rows, fit, band, and the relative residuals underneath."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featscale.fits import CurveFit
    from featscale.fits.resample import Rows

ROWS_PER_DECADE = 50
OUTSIDE = "0.75"


def save(path: Path, fits: Sequence[tuple[str, CurveFit, Rows]]) -> None:
    """Draw every (name, fit, rows) in one picture at `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6) if len(fits) == 1 else (7.6, 6.4), layout="constrained")
    draw_all(figure, fits)
    figure.savefig(path, dpi=150)


def draw(figure: Figure, fitted: CurveFit, rows: Rows) -> None:
    """One curve; see :func:`draw_all`."""
    draw_all(figure, [("", fitted, rows)])


def draw_all(figure: Figure, fits: Sequence[tuple[str, CurveFit, Rows]]) -> None:
    """Rows, fit and band in log-log, and underneath the relative residuals; rows outside the window are grey."""
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    spread = 1e-3
    for i, (name, fitted, rows) in enumerate(fits):
        _draw_rows(top, below, fitted, rows, f"C{i % 10}")
        _draw_fit(top, below, fitted, "C3" if len(fits) == 1 else f"C{i % 10}", name)
        spread = max(spread, 1.3 * float(abs(fitted.loss / fitted.at(fitted.t) - 1).max()))
    top.set(xscale="log", yscale="log", ylabel="loss")
    below.set(xlabel="t", ylabel="loss / fit − 1")
    below.set_ylim(-spread, spread)
    top.legend(frameon=False, fontsize="medium" if len(fits) == 1 else "x-small")


def _draw_rows(top: Axes, below: Axes, fitted: CurveFit, rows: Rows, color: str) -> None:
    lo, hi = fitted.window
    for s, label in enumerate(rows.labels):
        t, loss = _thinned(rows, s)
        inside = (t >= lo * (1 - 1e-9)) & (t <= hi * (1 + 1e-9)) & (label in fitted.seeds)
        for mask, style in ((~inside, {"color": OUTSIDE}), (inside, {"color": color, "alpha": 0.6})):
            top.plot(t[mask], loss[mask], ".", markersize=3, markeredgewidth=0, **style)
            below.plot(t[mask], loss[mask] / fitted.at(t[mask]) - 1, ".", markersize=3, markeredgewidth=0, **style)


def _draw_fit(top: Axes, below: Axes, fitted: CurveFit, color: str, name: str) -> None:
    t, line = fitted.t, fitted.at(fitted.t)
    label = caption(fitted) if not name else f"{name}: {fitted.exponent:.4g} ({_interval(fitted)})"
    top.plot(t, line, color=color, label=label)
    below.axhline(0, color=color, linewidth=1)
    if len(fitted.seeds) > 1:
        low, high = fitted.band(t)
        top.fill_between(t, low, high, color=color, alpha=0.25, linewidth=0)
        below.fill_between(t, low / line - 1, high / line - 1, color=color, alpha=0.25, linewidth=0)
    for axes in (top, below):
        for edge in fitted.window:
            axes.axvline(edge, color="0.6" if not name else color, linestyle=":", linewidth=1)


def caption(fitted: CurveFit) -> str:
    """What was fitted, in two lines."""
    floor = f", floor {fitted.floor:.4g} ({fitted.floor_kind})" if fitted.floor_kind != "zero" else ""
    second = f", with a second law of {fitted.second[0]:.3g}" if fitted.second else ""
    return f"exponent {fitted.exponent:.4g}{floor}{second}\n{_interval(fitted)}"


def _interval(fitted: CurveFit) -> str:
    lo, hi = fitted.interval
    n = len(fitted.seeds)
    return "one seed, no interval" if n == 1 else f"{100 * fitted.level:g} % interval {lo:.4g} to {hi:.4g}, {n} seeds"


def _thinned(rows: Rows, s: int) -> tuple[Any, Any]:
    """At most 50 rows a decade of seed s with a loss that a log axis can show."""
    part = slice(rows.start[s], rows.start[s + 1])
    t, loss = rows.t[part], rows.loss[part]
    if t.size == 0:
        return t, loss
    decades = np.log10(t[-1] / t[0])
    grid = np.geomspace(t[0], t[-1], 2 + int(ROWS_PER_DECADE * decades))
    rank = np.unique(np.minimum(np.searchsorted(t, grid), t.size - 1))
    rank = rank[loss[rank] > 0]
    return t[rank], loss[rank]
