"""Exponents of the compute-optimal frontier, measured in three ways, with intervals and a test of whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from featscale.fits.clusters import Resamples, rao_wu
from featscale.fits.isoflop import Optima, Surface, envelope, isoflop, surface
from featscale.fits.law_fit import DELTA, LawFit, fit_law
from featscale.fits.observations import Observations

Array = NDArray[np.float64]
Interval = tuple[float, float]
Method = Literal["envelope", "isoflop", "parametric"]

METHODS: tuple[Method, ...] = ("envelope", "isoflop", "parametric")
DIFFER = 0.05
# Standard errors below this are those of identical seeds.
IDENTICAL = 1e-7
SHORT_DECADES = 0.5
# Widths further apart than this leave the spline of a noise-free sum more than 5 % off.
WIDEST = 3.0


@dataclass(frozen=True)
class Estimate:
    """One way's exponents: L* ~ C^−loss, N* ~ C^width, t* ~ C^time, each with its interval; NaN where it could not be had.

    compute, width, loss, shape (n,): the optima it rests on. bracketed, shape (n,): whether measured widths lie on both sides of each.
    """

    loss_exponent: float
    width_exponent: float
    time_exponent: float
    loss_interval: Interval
    width_interval: Interval
    time_interval: Interval
    compute: Array
    width: Array
    loss: Array
    bracketed: NDArray[np.bool_]


@dataclass(frozen=True)
class FrontierFit:
    """Three estimates of one frontier, C = N t.

    estimates, method → :class:`Estimate`. agree: "compatible", "differ" or "untested". p_value: of the largest difference, Bonferroni over
    the pairs and the two exponents; NaN without replicates. difference: the largest, in standard errors. law: the parametric fit.
    floor: what was subtracted from the loss. clusters, cluster_kind, df, level, flags.
    """

    estimates: Mapping[Method, Estimate]
    agree: Literal["compatible", "differ", "untested"]
    p_value: float
    difference: float
    law: LawFit
    floor: float
    clusters: int
    cluster_kind: str
    df: int
    level: float
    flags: tuple[str, ...]


def fit_frontier(
    observed: Observations, *, floor: float = 0.0, level: float = 0.95, draws: int = 400, delta: float = DELTA
) -> FrontierFit:
    r"""Exponents of L*(C) = min over N t = C of L(N, t), by the envelope, by IsoFLOP slices and from the fitted sum A t^−χ + B N^−r.

    .. math:: L^* \sim C^{-\chi r/(\chi + r)},\qquad N^* \sim C^{\chi/(\chi + r)},\qquad t^* \sim C^{r/(\chi + r)}

    All three see the same resampled seeds or runs (:func:`rao_wu`), so that their differences have a standard error of their own; each pair is
    compared by Student's t.
    Source: derived; the three ways are those of Hoffmann et al. 2022, arXiv:2203.15556; tests/fits/test_frontier_fit.py.
    Arguments: observed, of variables t and N, with `floor` already subtracted from its loss.
    Returns: :class:`FrontierFit`; doubts are in its flags.
    Raises: BadInput for fewer than four widths.
    Accuracy: on noise-free sums with widths a factor 2 apart the exponents are right to 0.1 % and IsoFLOP's N* to 3 %.
    Cost: a law fit with its resamples, and G W of each resample for the other two.
    """
    on = surface(observed)
    law = fit_law("sum", observed, delta=delta, level=level, draws=draws)
    resamples = rao_wu(observed.clusters, draws)
    one, many = on.mean(np.ones((1, observed.clusters.stratum.size))), on.mean(resamples.weights)
    t = observed.clusters.quantile(level)
    optima: dict[Method, Optima] = {"envelope": envelope(on, one), "isoflop": isoflop(on, one)}
    optima["parametric"] = _of_law(law, on.log_C)
    slopes: dict[Method, Array] = {method: optima[method].slopes()[0] for method in METHODS}
    nothing = np.full((len(resamples.weights), 2), math.nan)
    stars: dict[Method, Array] = {
        "envelope": envelope(on, many).slopes() if law.df else nothing,
        "isoflop": isoflop(on, many).slopes() if law.df else nothing,
        "parametric": _law_slopes(law.replicates[:, 2], law.replicates[:, 3]) if law.df else nothing,
    }
    estimates = {
        method: _estimate(slopes[method], stars[method], resamples, t, optima[method], on) for method in METHODS
    }
    p_value, difference = _disagreement(slopes, stars, resamples, law.df)
    agree: Literal["compatible", "differ", "untested"] = "compatible" if p_value >= DIFFER else "differ"
    return FrontierFit(
        estimates=estimates,
        agree="untested" if math.isnan(p_value) else agree,
        p_value=p_value,
        difference=difference,
        law=law,
        floor=floor,
        clusters=law.clusters,
        cluster_kind=law.cluster_kind,
        df=law.df,
        level=level,
        flags=(*_flags(estimates, optima["isoflop"], on, stars, law), *law.flags),
    )


def _law_slopes(chi: Array, r: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([chi * r / (chi + r), chi / (chi + r)], axis=-1)


def _of_law(law: LawFit, log_C: Array) -> Optima:
    """The optima of the fitted sum in closed form: A χ t^−χ = B r N^−r at N t = C."""
    A, B, chi, r = (law.parameters[k] for k in ("A", "B", "chi", "r"))
    if not (A > 0 and B > 0 and chi > 0 and r > 0):
        return Optima(*np.full((3, 1, log_C.size), math.nan))
    log_N = (math.log(B * r / (A * chi)) + chi * log_C) / (chi + r)
    log_L = np.logaddexp(math.log(A) - chi * (log_C - log_N), math.log(B) - r * log_N)
    return Optima(log_C[None], log_N[None], log_L[None])


def _estimate(slope: Array, star: Array, resamples: Resamples, t: float, optima: Optima, on: Surface) -> Estimate:
    half = t * np.sqrt(resamples.variance(star)) if np.isfinite(star).any() else np.full(2, math.nan)
    loss, width = float(slope[0]), float(slope[1])
    log_C, log_N, log_L = optima.log_C[0], optima.log_N[0], optima.log_L[0]
    known = np.isfinite(log_N)
    return Estimate(
        loss_exponent=loss,
        width_exponent=width,
        time_exponent=1 - width,
        loss_interval=(loss - float(half[0]), loss + float(half[0])),
        width_interval=(width - float(half[1]), width + float(half[1])),
        time_interval=(1 - width - float(half[1]), 1 - width + float(half[1])),
        compute=np.exp(log_C[known]),
        width=np.exp(log_N[known]),
        loss=np.exp(log_L[known]),
        bracketed=(log_N[known] > on.log_N[0]) & (log_N[known] < on.log_N[-1]),
    )


def _disagreement(
    slopes: Mapping[Method, Array], stars: Mapping[Method, Array], resamples: Resamples, df: int
) -> tuple[float, float]:
    """p-value and size in standard errors of the largest difference between two methods."""
    if df < 1:
        return math.nan, math.nan
    worst, tests = 0.0, 0
    for a, b in combinations(METHODS, 2):
        apart, star = slopes[a] - slopes[b], stars[a] - stars[b]
        if not np.isfinite(apart).all() or not np.isfinite(star).any():
            continue
        spread = np.sqrt(resamples.variance(star))
        if spread.min() > IDENTICAL:
            worst = max(worst, float((np.abs(apart) / spread).max()))
            tests += 2
    if tests == 0:
        return math.nan, math.nan
    return float(min(1.0, tests * 2 * (1 - stdtr(df, worst)))), worst


def _flags(
    estimates: Mapping[Method, Estimate], slices: Optima, on: Surface, stars: Mapping[Method, Array], law: LawFit
) -> Iterator[str]:
    for method in METHODS:
        found = estimates[method]
        if not math.isfinite(found.loss_exponent):
            why = "a term of the sum vanishes" if method == "parametric" else "fewer than three bracketed optima"
            yield f"{method}: {why}, no exponent"
        elif method != "parametric":
            decades = math.log10(found.compute.max() / found.compute.min())
            if decades < SHORT_DECADES:
                yield f"{method}: optima span {decades:.2g} decades of compute only"
            lost = float(np.mean(~np.isfinite(stars[method][:, 0])))
            if law.df and lost > 0.02:
                yield f"{method}: {100 * lost:.0f} % of the resamples have no exponent"
    apart = math.exp(float(np.diff(on.log_N).max()))
    if apart > WIDEST:
        yield f"isoflop: widths up to a factor {apart:.2g} apart, too few for an optimum better than 5 %"
    outside = int((~np.isfinite(slices.log_N)).sum())
    if outside:
        lo, hi = np.exp(on.log_C[[0, -1]])
        at = estimates["isoflop"].compute
        where = f"C from {at.min():.3g} to {at.max():.3g}" if at.size else "no C"
        yield f"optimum bracketed for {where} only, of {lo:.3g} to {hi:.3g}"
