r"""Which rows a curve is fitted to, and with which law: as asked, as predicted, or as its own curvature tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.fits.estimate import FloorKind, LawName, estimate, rows, ruling, two_laws
from featscale.fits.resample import Nodes, Rows, Window, resample
from featscale.fits.seed_intervals import influence, standard_error
from featscale.fits.two_terms import TwoTerms, jacobian, log_curve
from featscale.fits.windows import Prediction, predicted_window, straight

Array = NDArray[np.float64]

# A window chosen by curvature that spans this much of the log range is all of it.
WHOLE = 0.95
# A second law is taken where the exponent it gives moves by more than this and by more than its own standard error.
MOVES = 0.002


@dataclass(frozen=True)
class Plan:
    """The curves inside the window, `nodes`, and where the window was free to be, `whole`; the law; flags.

    how the window came about: "given", "predicted" or "automatic". start, of a fit of two terms.
    """

    nodes: Nodes
    whole: Nodes
    law: LawName
    how: str
    start: TwoTerms | None = None
    flags: tuple[str, ...] = ()


def plan(
    table: Rows, window: Window | None, law: LawName | None, kind: FloorKind, E: float, prediction: Prediction | None
) -> Plan:
    """The window and the law for the curves in `table`.

    A window that is given or predicted is kept, with one law unless another is asked for. Otherwise the longest one in which one law holds
    (:func:`featscale.fits.windows.straight`). Where that is less than the whole curve and no law was asked for, two terms are fitted to all of it: if what
    they leave is straight over the whole and the exponent is known better than the cut window's bias, the two-term law is taken.
    Raises: BadInput for losses <= E or for windows without rows.
    """
    if window is not None:
        nodes = resample(table, window, E)
        return Plan(nodes, nodes, law or "one", "given")
    whole = _measured(table)
    if prediction is not None:
        nodes = resample(table, predicted_window(prediction, whole, E), E)
        return Plan(nodes, nodes, law or "one", "predicted")
    nodes = resample(table, whole, E)
    y = nodes.interpolate(np.log(nodes.row_loss - E))
    if law in ("two", "broken"):
        return Plan(nodes, nodes, law, "automatic")
    if kind == "free":
        return _above_free_floor(table, nodes, y)
    choice = straight(nodes, y)
    if _span(nodes, choice.nodes) >= WHOLE:
        return Plan(nodes, nodes, "one", "automatic")
    cut = resample(table, choice.window, E)
    if law is None:
        one = estimate(cut, "one", kind, E)
        two = _two_terms(nodes, y, E, one.exponent)
        if two is not None:
            return two
    flags = (
        () if choice.found else (f"window: no power law: the exponent drifts by {choice.drift:.2g} in half a decade",)
    )
    return Plan(cut, nodes, "one", "automatic", flags=(*flags, *_cut_flags(nodes, cut)))


def _measured(table: Rows) -> Window:
    require(table.t.size > 0, "loss", "not finite in any row with t > 0", "at least two finite rows")
    return float(table.t.min()), float(table.t.max())


def _span(nodes: Nodes, part: tuple[int, int]) -> float:
    return (part[1] - part[0]) / (nodes.log_t.size - 1)


def _two_terms(nodes: Nodes, y: Array, E: float, cut_exponent: float) -> Plan | None:
    """Two terms on the whole curve, if they straighten it and tell the exponent better than the cut window's bias."""
    if nodes.log_t.size < 24:
        return None
    fit = two_laws(nodes, E)
    law = ruling(fit, nodes)
    p = fit.p if law == "two" else fit.p[[2, 3, 0, 1]]
    row_log_t, weight = rows(nodes)
    bend = log_curve(p, fit.kappa, row_log_t) - (p[1] - p[0] * row_log_t)
    left = straight(nodes, y - (weight * bend).sum(axis=-1).mean(axis=0))
    J = (weight[..., None] * jacobian(p, fit.kappa, row_log_t)).sum(axis=-2).mean(axis=0)
    f = (weight * log_curve(p, fit.kappa, row_log_t)).sum(axis=-1).mean(axis=0)
    error = float(standard_error(influence(y - f, J)[:, 0]))
    moved = abs(float(p[0]) - cut_exponent)
    if _span(nodes, left.nodes) < WHOLE or not left.found or moved < max(MOVES, 0 if math.isnan(error) else error):
        return None
    return Plan(nodes, nodes, law, "automatic", fit)


def _above_free_floor(table: Rows, nodes: Nodes, y: Array) -> Plan:
    """The window in which log loss less its fit above a floor has no trend left."""
    require(int(nodes.rows.min()) >= 4, "floor", "free", "zero or a value: a seed has fewer than 4 rows in the window")
    fit = estimate(nodes, "one", "free", 0.0)
    left = straight(nodes, fit.residual - fit.exponent * nodes.log_t)
    if _span(nodes, left.nodes) >= WHOLE:
        return Plan(nodes, nodes, "one", "automatic")
    cut = resample(table, left.window, 0.0)
    if cut.rows.min() < 4:
        return Plan(nodes, nodes, "one", "automatic", flags=("window: one power law above a floor does not fit",))
    return Plan(cut, nodes, "one", "automatic", flags=_cut_flags(nodes, cut))


def _cut_flags(nodes: Nodes, cut: Nodes) -> tuple[str, ...]:
    lo, hi = math.exp(cut.log_t[0]), math.exp(cut.log_t[-1])
    all_lo, all_hi = math.exp(nodes.log_t[0]), math.exp(nodes.log_t[-1])
    return (
        f"window cut to t {lo:.4g}..{hi:.4g} of {all_lo:.4g}..{all_hi:.4g}: the local exponent is not constant beyond",
    )
