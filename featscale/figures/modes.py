"""Which Fourier modes of the circle task are learned when: octaves of the test loss, and k*(t)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from featscale.errors import require

Array = NDArray[np.float64]
PREFIX = "band_"
# An octave with less than this share of the target's power is not part of the target.
NEGLIGIBLE = 1e-12


def octaves(curve: pl.DataFrame) -> list[int]:
    """The first modes b of the octaves [b, 2b) that hold power of the target, ascending, from the row t = 0 of a curve.

    At t = 0 the centred output is 0 and the loss is the target's power.
    Raises: BadInput if the curve has no octaves or no row at t = 0.
    """
    names = [name for name in curve.columns if name.startswith(PREFIX) and name != f"{PREFIX}0"]
    require(bool(names), "curve", "no columns band_1, band_2, …", "a run of data=circle with data.modes=true")
    first = curve.filter(pl.col("t") == 0)
    require(len(first) > 0, "curve", "no row at t = 0", "a curve from its start, where the loss is the target's power")
    power = {int(name.removeprefix(PREFIX)): float(first[name][0]) for name in names}
    return sorted(b for b, value in power.items() if value > NEGLIGIBLE * sum(power.values()))


def k_star(curve: pl.DataFrame, share: float = 0.5) -> pl.DataFrame:
    r"""The mode up to which the target is learned, at each row of a curve with octaves (`data.modes=true`).

    .. math:: r_b(t) = \frac{L_b(t)}{L_b(0)}, \qquad k^*(t) = \min \{ k : r(k, t) \ge share \}

    with r between octaves by interpolation in log k, each octave standing at its geometric mean √(b(2b − 1)). In the
    lazy limit r = exp(−2 λ_k t), so k* = (2 c t/ln 2)^(1/α) for λ_k = c k^-α and share ½.

    Source: derived; tests/figures/test_modes.py.
    Arguments: curve, columns t, seed, band_b. share in (0, 1).
    Returns: columns t, seed, k_star, sorted by seed and t; k_star is NaN before the first octave is learned and after
    the last is, where it cannot be told.
    Raises: BadInput as :func:`octaves`, or for another share.
    Accuracy: an octave is taken as one mode, so k* is good to a factor of about √2 where r is steep, its slope in t
    better.
    """
    require(0 < share < 1, "share", share, "a number between 0 and 1")
    starts = octaves(curve)
    centre = np.log([np.sqrt(b * (2.0 * b - 1)) for b in starts])
    columns = [f"{PREFIX}{b}" for b in starts]
    parts = []
    for _, rows in curve.sort("seed", "t").group_by("seed", maintain_order=True):
        residual = rows.select(columns).to_numpy() / rows.filter(pl.col("t") == 0).select(columns).to_numpy()
        found = [_crossing(centre, row, share) for row in residual]
        parts.append(rows.select("t", "seed").with_columns(pl.Series("k_star", found, dtype=pl.Float64)))
    return pl.concat(parts)


def _crossing(x: Array, r: Array, share: float) -> float:
    """exp(x) where r, linear between its points, first comes up to `share`; NaN if it starts above it or never does."""
    above = np.flatnonzero(r >= share)
    if len(above) == 0 or above[0] == 0:
        return float("nan")
    i = above[0]
    part = (share - r[i - 1]) / (r[i] - r[i - 1])
    return float(np.exp(x[i - 1] + part * (x[i] - x[i - 1])))


def save(curve: pl.DataFrame, path: Path, title: str) -> None:
    """Two panels: the loss of each octave, mean over seeds, and k* of each seed, against flow time."""
    starts, found = octaves(curve), k_star(curve)
    mean = curve.filter(pl.col("t") > 0).group_by("t").mean().sort("t")
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    losses, modes = figure.subplots(1, 2)
    for i, b in enumerate(starts):
        shade = str(0.8 * i / max(1, len(starts) - 1))
        losses.plot(mean["t"], mean[f"{PREFIX}{b}"], color=shade, lw=1, label=f"k = {b} … {2 * b - 1}")
    losses.set(xscale="log", yscale="log", xlabel="flow time t", ylabel="test loss of the octave", title=title)
    for _, rows in found.filter(pl.col("t") > 0).group_by("seed", maintain_order=True):
        modes.plot(rows["t"], rows["k_star"], lw=1)
    modes.set(xscale="log", yscale="log", xlabel="flow time t", ylabel="k*(t)", title="modes below k* are learned")
    losses.legend(fontsize=6, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
