"""How the exponent moves with the window and with the law."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from featscale.fits.estimate import Estimate, FloorKind, LawName, estimate, ruling, two_laws
from featscale.fits.plan import Plan
from featscale.fits.resample import Nodes, Rows, Window, resample
from featscale.fits.seed_intervals import Interval
from featscale.fits.two_terms import TwoTerms

# Nodes that an alternative window must have.
FEWEST = 5
# An alternative reaches this factor of t beyond the window.
WIDER = math.sqrt(10.0)
# Rows of a seed that two terms need.
TWO_ROWS = 6


@dataclass(frozen=True)
class Alternative:
    """Another way to fit the same curves: its name, window in units of t, law, floor kind, exponent and delta-method interval."""

    name: str
    window: Window
    law: LawName
    floor_kind: FloorKind
    exponent: float
    interval: Interval


def alternatives(table: Rows, chosen: Plan, fitted: Estimate, kind: FloorKind, level: float) -> tuple[Alternative, ...]:
    """Refits in parts of the window and beyond it with the same law, and in the window with other laws.

    Parts: lower and upper half, all but the first and all but the last quarter, in log t; beyond: half a decade earlier and later, where rows
    are. Laws: one where two were fitted; one with zero floor where it was free, and two in all
    of the curve.
    Cost: up to eight fits.
    """

    nodes, law = chosen.nodes, chosen.law

    def row(name: str, part: Nodes, law: LawName, kind: FloorKind, start: TwoTerms | None) -> Alternative:
        found = estimate(part, law, kind, fitted.known, start)
        window = math.exp(part.log_t[0]), math.exp(part.log_t[-1])
        return Alternative(name, window, law, kind, found.exponent, found.delta(level))

    rows = [row(name, part, law, kind, fitted.start) for name, part in _windows(table, nodes, fitted.known)]
    if law != "one":
        rows.append(row("one law", nodes, "one", kind, None))
    if kind == "free":
        rows.append(row("zero floor", nodes, "one", "zero", None))
        if chosen.whole.rows.min() >= TWO_ROWS:
            fit = two_laws(chosen.whole, 0.0)
            rows.append(row("zero floor, two laws", chosen.whole, ruling(fit, chosen.whole), "zero", fit))
    return tuple(rows)


def spread(exponent: float, rows: tuple[Alternative, ...], law: LawName, kind: FloorKind) -> float:
    """Largest distance from `exponent` among the other windows with the same law; NaN if there is none."""
    moved = [abs(row.exponent - exponent) for row in rows if (row.law, row.floor_kind) == (law, kind)]
    return max(moved, default=math.nan)


def _windows(table: Rows, nodes: Nodes, E: float) -> Iterator[tuple[str, Nodes]]:
    G = nodes.log_t.size
    middle, quarter = G // 2, G // 4
    parts = {
        "lower half": slice(middle + 1),
        "upper half": slice(middle, None),
        "without first quarter": slice(quarter, None),
        "without last quarter": slice(G - quarter),
    }
    for name, part in parts.items():
        if nodes.log_t[part].size >= FEWEST:
            yield name, nodes.part(part)
    lo, hi = math.exp(nodes.log_t[0]), math.exp(nodes.log_t[-1])
    first, last = float(table.t.min()), float(table.t.max())
    for name, window, there in (
        ("half a decade earlier", (lo / WIDER, hi), first <= lo / WIDER),
        ("half a decade later", (lo, hi * WIDER), last >= hi * WIDER),
    ):
        if there and _positive(table, window, E):
            yield name, resample(table, window, E)


def _positive(table: Rows, window: Window, E: float) -> bool:
    inside = (table.t >= window[0] * (1 - 1e-6)) & (table.t <= window[1] * (1 + 1e-6))
    return bool(np.all(table.loss[inside] > E))
