"""Measured rows that a law can be fitted to: checked, thinned along trajectories, and told apart into independent runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import BadInput, require
from featscale.fits.clusters import Clusters, crossed
from featscale.fits.resample import column

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

# Rows of one trajectory nearer than this say the same thing twice.
PER_DECADE = 24
# More independent rows than this are drawn from, for a law has few parameters.
MOST = 20_000


@dataclass(frozen=True)
class Observations:
    """n rows with finite loss > 0 and variables x > 0.

    x, variable → shape (n,). loss, shape (n,). seed, shape (n,), codes from 0, or None. config, shape (n,): rows that differ at most in t
    and seed share one. clusters: what is independent of what. rows: how many there were. flags: what was left out.
    """

    x: Mapping[str, Array]
    loss: Array
    seed: Codes | None
    config: Codes
    clusters: Clusters
    rows: int
    flags: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return int(self.loss.size)


def observe(
    columns: Mapping[str, ArrayLike],
    variables: tuple[str, ...],
    *,
    window: tuple[float, float] | None = None,
    cluster: str | None = None,
) -> Observations:
    """Check and group rows of `variables`, loss and perhaps seed.

    Rows with t <= 0, outside the window, or without a finite loss are left out; the last are flagged. Along a trajectory (a law in t) at most
    24 rows a decade are kept, the first of each interval. Where every row is a run, more than 20,000 are drawn from with a fixed seed, flagged.
    Arguments: columns, name → shape (n,). window (lo, hi) in units of t. cluster: "seed" or "run" to insist on what is resampled.
    Raises: BadInput for a missing column, lengths that differ, a variable that is NaN or <= 0, a loss <= 0, no row left, one t twice in a run.
    Cost: a sort of n for each column.
    """
    for name in (*variables, "loss"):
        require(name in columns, name, "no such column", f"the columns {', '.join((*variables, 'loss'))}[, seed]")
    x = {name: column(name, columns[name]) for name in variables}
    loss = column("loss", columns["loss"])
    rows = loss.size
    seed = _seed(columns.get("seed"), rows)
    keep, flags = _kept(x, loss, window)
    require(
        bool(keep.any()), "loss", f"{rows} rows, none usable", "rows with a finite loss, t > 0 and inside the window"
    )
    x, loss = {name: values[keep] for name, values in x.items()}, loss[keep]
    seed = None if seed is None else seed[keep]
    config = _config(x)
    require(cluster in (None, "seed", "run"), "cluster", cluster, "seed or run")
    require(cluster is None or seed is not None, "cluster", cluster, "a table with a column seed")
    some, more = _some(x, loss, config, seed)
    if some is not None:
        x, loss, config = {name: values[some] for name, values in x.items()}, loss[some], config[some]
        seed = None if seed is None else seed[some]
    if seed is not None:
        seed = np.unique(seed, return_inverse=True)[1].reshape(-1)
    config = np.unique(config, return_inverse=True)[1].reshape(-1)
    clusters = crossed(config, seed, "t" not in x, cluster)
    return Observations(x, loss, seed, config, clusters, rows, (*flags, *more))


def _seed(values: ArrayLike | None, n: int) -> Codes | None:
    if values is None:
        return None
    array = np.asarray(values)
    require(array.shape == (n,), "seed", f"shape {array.shape}", f"as many rows as loss, {n}")
    if array.dtype.kind == "f":
        require(bool(np.isfinite(array).all()), "seed", "NaN or infinite in some row", "a seed in every row")
    try:
        return np.unique(array, return_inverse=True)[1].reshape(-1)
    except TypeError:
        raise BadInput("seed", "not comparable with each other", "a seed of one type in every row") from None


def _kept(
    x: Mapping[str, Array], loss: Array, window: tuple[float, float] | None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows are used, and what is said of the others."""
    keep = np.ones(loss.size, dtype=bool)
    for name, values in x.items():
        require(values.size == loss.size, name, f"{values.size} rows", f"as many rows as loss, {loss.size}")
        _every(np.isfinite(values), name, values, "a finite number in every row")
        if name == "t":
            keep &= values > 0
        else:
            _every(values > 0, name, values, "> 0 in every row")
    if window is not None and "t" in x:
        lo, hi = window
        require(0 < lo < hi, "window", f"{lo:g},{hi:g}", "two numbers lo,hi with 0 < lo < hi")
        inside = (x["t"] >= lo * (1 - 1e-9)) & (x["t"] <= hi * (1 + 1e-9))
        found = f"a window with rows in it; t runs from {x['t'].min():g} to {x['t'].max():g}" if loss.size else "rows"
        require(bool((inside & keep).any()), "window", f"{lo:g},{hi:g}", found)
        keep &= inside
    finite = np.isfinite(loss)
    _every((loss > 0) | ~finite | ~keep, "loss", loss, "> 0 in every row that is used")
    lost = int((keep & ~finite).sum())
    return keep & finite, [f"{lost} rows without a finite loss left out"] if lost else []


def _every(good: NDArray[np.bool_], name: str, values: Array, allowed: str) -> None:
    if not good.all():
        i = int(np.argmin(good))
        raise BadInput(name, f"{values[i]:g} in row {i + 1}", allowed)


def _config(x: Mapping[str, Array]) -> Codes:
    """One code for each combination of the variables other than t."""
    code = np.zeros(next(iter(x.values())).size, dtype=np.int64)
    for name, values in x.items():
        if name != "t":
            own = np.unique(values, return_inverse=True)[1].reshape(-1)
            code = np.unique(code * (int(own.max()) + 1) + own, return_inverse=True)[1].reshape(-1)
    return code


def _some(x: Mapping[str, Array], loss: Array, config: Codes, seed: Codes | None) -> tuple[Codes | None, list[str]]:
    """Rows to keep of trajectories and of very long tables; None for all."""
    if "t" not in x:
        if loss.size <= MOST:
            return None, []
        chosen = np.sort(np.random.default_rng(0).choice(loss.size, MOST, replace=False))
        return chosen, [f"{loss.size} rows: {MOST} of them fitted, drawn at random"]
    run = config if seed is None else config * (int(seed.max()) + 1) + seed
    order = np.lexsort((x["t"], run)) if not _ordered(run, x["t"]) else np.arange(run.size)
    r, t = run[order], x["t"][order]
    twice = (r[1:] == r[:-1]) & (t[1:] == t[:-1])
    if twice.any():
        advice = "each t once a run; a column seed tells seeds apart" if seed is None else "each t once a run (N, seed)"
        raise BadInput("t", f"{t[int(np.argmax(twice))]:g} twice in one run", advice)
    slot = np.floor(PER_DECADE * np.log10(t) + 1e-6)
    first = np.ones(r.size, dtype=bool)
    first[1:] = (r[1:] != r[:-1]) | (slot[1:] != slot[:-1])
    return order[first], []


def _ordered(run: Codes, t: Array) -> bool:
    return bool(((run[1:] > run[:-1]) | ((run[1:] == run[:-1]) & (t[1:] >= t[:-1]))).all())
