"""From measured rows (t, loss, seed) to every seed's curve around the nodes of one log grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import BadInput, require

Array = NDArray[np.float64]
Window = tuple[float, float]

PER_DECADE = 24
# Beyond 40 decades the grid is coarser.
MOST_NODES = 1 + 40 * PER_DECADE
# A window is met up to rounding: t = eta * step is seldom the number that was typed.
ROUNDING = 1e-9
# A seed that covers less of the log range than this is left out, for it would shrink the window of all others.
COVERAGE = 0.75


@dataclass(frozen=True)
class Rows:
    """Measured rows with t > 0, ordered by seed and then by t, finite, each t once a seed.

    t, loss, shape (n,). start, shape (S + 1,): seed s has the rows start[s] to start[s + 1]. labels, the S names of the seeds.
    flags, what was cut.
    """

    t: Array
    loss: Array
    start: NDArray[np.int64]
    labels: tuple[Any, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Nodes:
    """S curves at the G nodes of a common grid, equally spaced in log t, between the two rows beside each node.

    A function f of the rows is interpolated at the nodes as sum(weight * f, axis=-1), which is exact for f linear in log t.

    log_t, shape (G,). row_log_t, row_loss, weight, shape (S, G, 2). rows, shape (S,): rows inside the window. labels, the S names of the
    seeds. window, as asked for. flags, what was left out.
    """

    log_t: Array
    row_log_t: Array
    row_loss: Array
    weight: Array
    rows: NDArray[np.int64]
    labels: tuple[Any, ...]
    window: Window
    flags: tuple[str, ...] = ()

    def interpolate(self, f: Array) -> Array:
        """`f` of the rows, shape (S, G, 2), at the nodes, shape (S, G)."""
        return (self.weight * f).sum(axis=-1)

    def part(self, nodes: slice) -> Nodes:
        """The same curves at some of the nodes."""
        rows = {name: getattr(self, name)[:, nodes] for name in ("row_log_t", "row_loss", "weight")}
        return replace(self, log_t=self.log_t[nodes], **rows)

    def mean(self) -> Nodes:
        """The arithmetic mean over seeds, as the curve of one."""
        if (self.row_log_t == self.row_log_t[0]).all():
            row_log_t, row_loss, weight = self.row_log_t[:1], self.row_loss.mean(axis=0)[None], self.weight[:1]
        else:
            loss = np.exp(self.interpolate(np.log(self.row_loss))).mean(axis=0)
            row_log_t = np.stack([self.log_t, self.log_t], axis=-1)[None]
            row_loss, weight = np.stack([loss, loss], axis=-1)[None], np.broadcast_to([1.0, 0.0], row_log_t.shape)
        return replace(
            self, row_log_t=row_log_t, row_loss=row_loss, weight=weight, rows=self.rows[:1], labels=("mean",)
        )


def clean(t: ArrayLike, loss: ArrayLike, seed: ArrayLike | None = None) -> Rows:
    """Drop rows with t <= 0, order the rest, and cut every seed at its first row without a finite loss.

    Arguments: t, loss, shape (n,). seed, shape (n,), of any type that can be ordered; None where all rows are one seed's.
    Returns: :class:`Rows`, flagged "seed k diverged at t=..".
    Raises: BadInput for shapes that differ, t or seed not a number, no row with t > 0, a seed that has some t twice.
    Cost: O(n) where the rows are ordered by seed and t, a sort of n otherwise.
    """
    t, loss = column("t", t), column("loss", loss)
    code, labels = _codes(seed, t.size)
    for name, size in (("loss", loss.size), ("seed", code.size)):
        require(size == t.size, name, f"{size} rows", f"as many rows as t, {t.size}")
    require(bool(np.isfinite(t).all()), "t", "NaN or infinite in some row", "finite numbers")
    positive = t > 0
    require(bool(positive.any()), "t", f"{t.size} rows, none with t > 0", "at least two rows with t > 0")
    if not positive.all():
        t, loss, code = t[positive], loss[positive], code[positive]
    order = _order(t, code)
    if order is not None:
        t, loss, code = t[order], loss[order], code[order]
    twice = t[1:] == t[:-1]
    if twice.any():
        twice &= code[1:] == code[:-1]
    if twice.any():
        i = int(np.argmax(twice))
        advice = "each t once a seed; a column seed tells seeds apart" if seed is None else "each t once a seed"
        raise BadInput("t", f"{t[i]:g} twice in seed {labels[code[i]]}", advice)
    return _cut(t, loss, code, labels)


def column(name: str, values: ArrayLike) -> Array:
    """`values` as a float64 array of shape (n,); ``BadInput`` names `name` otherwise."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput(name, "not numbers", "a sequence of numbers") from None
    require(array.ndim == 1, name, f"shape {array.shape}", "one dimension, a row an entry")
    return array


def _codes(seed: ArrayLike | None, n: int) -> tuple[NDArray[np.int64], tuple[Any, ...]]:
    """Index of every row's seed among the ordered `labels`."""
    if seed is None:
        return np.zeros(n, np.int64), (0,)
    array = np.asarray(seed)
    require(array.ndim == 1, "seed", f"shape {array.shape}", "one dimension, a row an entry")
    if array.dtype.kind == "f":
        require(bool(np.isfinite(array).all()), "seed", "NaN or infinite in some row", "a seed in every row")
    if array.dtype.kind in "iu" and array.size and int(array.max()) - int(array.min()) < 1_000_000:
        offset = (array - array.min()).astype(np.int64)
        present = np.bincount(offset) > 0
        labels, code = np.flatnonzero(present) + array.min(), (np.cumsum(present) - 1)[offset]
    else:
        try:
            labels, code = np.unique(array, return_inverse=True)
        except TypeError:
            raise BadInput("seed", "not comparable with each other", "a seed of one type in every row") from None
    return code, tuple(labels.tolist())


def _order(t: Array, code: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Indices that order rows by seed and then by t; None if they are so already."""
    ascending = t[1:] >= t[:-1]
    if bool((ascending & (code[1:] == code[:-1]) | (code[1:] > code[:-1])).all()):
        return None
    # Two sorts are five times faster than lexsort: one is often done, and stable sorting of 16 bits is by radix.
    order = np.arange(t.size) if ascending.all() else np.argsort(t)
    narrow = code.astype(np.uint16) if code.max() < 2**16 else code
    return order[np.argsort(narrow[order], kind="stable")]


def _cut(t: Array, loss: Array, code: NDArray[np.int64], labels: tuple[Any, ...]) -> Rows:
    flags = []
    finite = np.isfinite(loss)
    if not finite.all():
        end = np.full(len(labels), np.inf)
        bad = np.flatnonzero(~finite)
        seeds, first = np.unique(code[bad], return_index=True)
        end[seeds] = t[bad[first]]
        flags = [f"seed {labels[s]} diverged at t={end[s]:g}" for s in seeds]
        keep = t < end[code]
        t, loss, code = t[keep], loss[keep], code[keep]
    start = np.searchsorted(code, np.arange(len(labels) + 1))
    return Rows(t, loss, start, labels, tuple(flags))


def resample(rows: Rows, window: Window, floor: float = 0.0) -> Nodes:
    """Put the seeds' curves inside `window` on one grid of 24 nodes a decade, from the last first row to the first last row.

    The grid makes the fit indifferent to where rows are dense. A seed that covers less than three quarters of the seeds' log range
    is left out and flagged, for curves averaged over changing sets of seeds would jump.

    Raises: BadInput for a window without two rows of some seed, seeds that do not overlap, a loss <= 0 or <= floor inside the window.
    Cost: O(n) to select, S G logarithms.
    """
    lo, hi = window[0] * (1 - ROUNDING), window[1] * (1 + ROUNDING)
    inside = (rows.t >= lo) & (rows.t <= hi)
    count = np.array([np.count_nonzero(inside[a:b]) for a, b in zip(rows.start, rows.start[1:], strict=False)])
    if not (count >= 2).any():
        found = f"t runs from {rows.t.min():g} to {rows.t.max():g}" if rows.t.size else "no finite row with t > 0"
        raise BadInput("window", f"{window[0]:g},{window[1]:g}", f"a window with at least two rows of a seed; {found}")
    t, loss = rows.t[inside], rows.loss[inside]
    edge = np.concatenate([[0], np.cumsum(count)])
    _require_above(floor, t, loss, edge, rows.labels)
    kept, flags = _overlapping(t, edge, rows.labels, window)
    low, high = max(t[edge[s]] for s in kept), min(t[edge[s + 1] - 1] for s in kept)
    require(
        bool(high > low * (1 + ROUNDING)),
        "window",
        f"{low:g},{high:g}",
        "rows at times that differ by more than rounding",
    )
    G = min(max(5, 1 + round(PER_DECADE * (np.log10(high) - np.log10(low)))), MOST_NODES)
    x = np.linspace(np.log(low), np.log(high), G)
    row_log_t, row_loss = np.empty((2, len(kept), x.size, 2))
    for i, s in enumerate(kept):
        part = slice(edge[s], edge[s + 1])
        left = np.clip(np.searchsorted(t[part], np.exp(x), side="right") - 1, 0, count[s] - 2)
        pair = np.stack([left, left + 1], axis=-1)
        row_log_t[i], row_loss[i] = np.log(t[part][pair]), loss[part][pair]
    gap = row_log_t[..., 1] - row_log_t[..., 0]
    # Neighbours one rounding apart may have equal logarithms; either row will do.
    right = np.clip(np.divide(x - row_log_t[..., 0], gap, out=np.zeros_like(gap), where=gap > 0), 0, 1)
    weight = np.stack([1 - right, right], axis=-1)
    return Nodes(x, row_log_t, row_loss, weight, count[kept], tuple(rows.labels[s] for s in kept), window, flags)


def _require_above(floor: float, t: Array, loss: Array, edge: NDArray[np.int64], labels: tuple[Any, ...]) -> None:
    i = int(np.argmin(loss))
    seed = labels[int(np.searchsorted(edge, i, side="right")) - 1]
    where = f"at t={t[i]:g}, seed {seed}"
    require(bool(loss[i] > 0), "loss", f"{loss[i]:g} {where}", "> 0 inside the window")
    require(bool(loss[i] > floor), "floor", floor, f"below the smallest loss inside the window, {loss[i]:g} {where}")


def _overlapping(
    t: Array, edge: NDArray[np.int64], labels: tuple[Any, ...], window: Window
) -> tuple[list[int], tuple[str, ...]]:
    """Seeds that cover enough of the seeds' common log range, and a flag for each of the others."""
    first, last = {}, {}
    for s in range(len(labels)):
        if edge[s + 1] - edge[s] >= 2:
            first[s], last[s] = float(t[edge[s]]), float(t[edge[s + 1] - 1])
    whole = np.log(max(last.values()) / min(first.values()))
    kept = [s for s in first if np.log(last[s] / first[s]) >= COVERAGE * whole]
    if not kept:
        spans = ", ".join(f"seed {labels[s]} {first[s]:g}..{last[s]:g}" for s in list(first)[:4])
        raise BadInput("window", f"{window[0]:g},{window[1]:g}", f"a window that the same seeds cover; rows: {spans}")
    flags = tuple(
        f"seed {labels[s]} left out: "
        + (f"covers only t {first[s]:g}..{last[s]:g}" if s in first else "fewer than two rows in the window")
        for s in range(len(labels))
        if s not in kept
    )
    return kept, flags
