"""The fit of a scaling law to measured losses: parameters, intervals, and what to know before quoting them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featscale.errors import require
from featscale.fits.clusters import Resamples, rao_wu
from featscale.fits.law_solve import Solution, shares, solve
from featscale.fits.law_uncertainty import (
    GRID,
    NO_FLOOR,
    condition,
    crossings,
    lack_of_fit,
    natural_jacobian,
    profile,
    replicates,
    sandwich,
)
from featscale.fits.laws import Design, Law, design, law_named, log_loss, logarithmic, named, uncentred
from featscale.fits.observations import Observations

Array = NDArray[np.float64]
Interval = tuple[float, float]

DELTA = 1e-3
DRAWS = 400
ILL_CONDITIONED = 100.0
SHORT_DECADES = 0.5
SMALL_SHARE = 0.05
LACK = 0.01
CONSTANT = 1e-9
SMALL_FLOOR = 0.01
NO_INTERVAL = (math.nan, math.nan)


@dataclass(frozen=True)
class LawFit:
    """A law fitted to n rows.

    parameters, name → value; NaN where a term vanished with its exponent. objective: Σ huber_delta(log L − log loss). converged.
    intervals, name → (lo, hi) at `level`, and methods, name → "bootstrap", "profile" or, with NaN, "none". stderr, name → standard
    error, of log c for a coefficient c and of log q. delta_method, name → interval by the sandwich, the cross-check.
    condition: of the Jacobian with columns of unit length. shares, coefficient → largest share of the loss. residual: rms log residual.
    lack_of_fit: p-value, NaN without replicates. rows, of them rows_used; clusters, their kind and df.
    replicates, shape (K, P), and probability, shape (K,): the parameter vectors of the bootstrap.
    without_floor, name → value with E = 0, where E is fitted and its interval reaches 0. span, variable → decades. flags.
    """

    law: Law
    parameters: Mapping[str, float]
    intervals: Mapping[str, Interval]
    methods: Mapping[str, str]
    stderr: Mapping[str, float]
    delta_method: Mapping[str, Interval]
    objective: float
    delta: float
    level: float
    converged: bool
    condition: float
    shares: Mapping[str, float]
    residual: float
    lack_of_fit: float
    rows: int
    rows_used: int
    clusters: int
    cluster_kind: str
    df: int
    span: Mapping[str, float]
    without_floor: Mapping[str, float]
    replicates: Array
    probability: Array
    quantile: float
    flags: tuple[str, ...]

    def at(self, x: Mapping[str, ArrayLike]) -> Array:
        """The fitted loss at variables x, each of shape (n,)."""
        return self._curves(x, np.array([self._vector()]))[0]

    def band(self, x: Mapping[str, ArrayLike]) -> tuple[Array, Array]:
        """Pointwise interval at `level` of the fitted loss at x, by the bootstrap of log loss; NaN without replicates."""
        middle = np.log(self.at(x))
        if not math.isfinite(self.quantile):
            return np.full_like(middle, math.nan), np.full_like(middle, math.nan)
        curves = np.log(self._curves(x, self.replicates))
        off = self.quantile * np.sqrt(Resamples(np.empty((0, 0)), self.probability).variance(curves))
        return np.exp(middle - off), np.exp(middle + off)

    def _vector(self) -> Array:
        with np.errstate(divide="ignore"):
            return np.array([np.log(v) if logarithmic(self.law, k) else v for k, v in self.parameters.items()])

    def _curves(self, x: Mapping[str, ArrayLike], p: Array) -> Array:
        columns = {name: np.atleast_1d(np.asarray(x[name], np.float64)) for name in self.law.variables}
        known = np.where(np.isnan(p), 0.0, np.maximum(p, -1e3))
        known = np.where(np.isnan(p).all(axis=1, keepdims=True), math.nan, known)
        return np.exp(log_loss(design(self.law, columns, dict.fromkeys(columns, 0.0)), known))


@dataclass(frozen=True)
class _Fitted:
    """The law that is left, with its floor kept even at 0, on the rows; p in centred coordinates."""

    on: Design
    p: Array
    y: Array
    delta: float
    observed: Observations
    J: Array
    r: Array


def fit_law(
    law: Law | str,
    observed: Observations,
    *,
    delta: float = DELTA,
    level: float = 0.95,
    draws: int = DRAWS,
    start: Mapping[str, float] | None = None,
) -> LawFit:
    r"""Fit a scaling law by the summed Huber loss of log residuals.

    .. math:: \min_{c \ge 0,\,\theta} \sum_n \mathrm{huber}_\delta\bigl(\log L(x_n; c, \theta) - \log \ell_n\bigr)

    Intervals are estimate ± Student's t times the standard error of a bootstrap that resamples whole seeds or runs with Rao and Wu's
    small-sample weights; near a bound they are where the profile of the objective, scaled to the sandwich variance (Chandler & Bate 2007),
    reaches t². Coefficients and q are treated on the log scale, exponents and the floor as they are.
    Source: Hoffmann et al. 2022, arXiv:2203.15556 (objective); derived; tests/fits/test_law_fit.py, test_law_coverage.py.
    Arguments: law, a row of LAWS or its name. observed, from :func:`observe`. delta > 0. level in (0, 1). draws >= 20 resamples at most.
    start, name → value: where to start instead of the search.
    Returns: :class:`LawFit`; doubts are in its flags.
    Raises: BadInput for fewer rows than parameters and one more, or a variable that has one value only.
    Cost: 0.1 s for 240 rows and the search, 1 to 2 s with 400 resamples.
    """
    row = law_named(law) if isinstance(law, str) else law
    _check(row, observed, delta, level, draws)
    scale = float(np.exp(np.log(observed.loss).mean()))
    if start is not None:
        start = {name: value / scale if name in row.coefficients else value for name, value in start.items()}
    fit = _fit(row, replace(observed, loss=observed.loss / scale), delta, level, draws, start)
    fit = _in_units(fit, scale)
    return replace(fit, flags=(*observed.flags, *_flags(fit, observed)))


def _fit(
    row: Law, observed: Observations, delta: float, level: float, draws: int, start: Mapping[str, float] | None
) -> LawFit:
    """The fit, without its flags, to losses near 1."""
    solution = solve(row, observed.x, observed.loss, delta, start)
    fitted = _fitted(row, solution, observed, delta)
    resamples = rao_wu(observed.clusters, draws)
    plain = _resampled(fitted, resamples, row.floor in solution.zero)
    values = _values(row, fitted, solution.zero)
    stderr, delta_method, intervals, methods = _intervals(fitted, values, plain, resamples, level)
    # The floor's column is left out of the condition number where it is zero.
    used = fitted.J[:, [name not in solution.zero for name in fitted.on.law.parameters]]
    fit = LawFit(
        law=row,
        parameters=values,
        intervals=_all_names(row, intervals, NO_INTERVAL),
        methods=methods,
        stderr=_all_names(row, stderr, math.nan),
        delta_method=_all_names(row, delta_method, NO_INTERVAL),
        objective=solution.objective,
        delta=delta,
        level=level,
        converged=solution.converged,
        condition=condition(used),
        shares=_all_names(row, shares(solution.on, solution.p), 0.0, row.coefficients),
        residual=float(np.sqrt(np.mean(fitted.r**2))),
        lack_of_fit=lack_of_fit(used, fitted.r, _logs(fitted), observed.clusters),
        rows=observed.rows,
        rows_used=observed.n,
        clusters=int(observed.clusters.stratum.size),
        cluster_kind=observed.clusters.kind,
        df=observed.clusters.df,
        span={k: float(np.log10(v.max() / v.min())) for k, v in observed.x.items()},
        without_floor={},
        replicates=_full(row, fitted.on.law, plain),
        probability=resamples.probability if observed.clusters.df > 0 else np.ones(1),
        quantile=observed.clusters.quantile(level),
        flags=(),
    )
    return replace(fit, without_floor=_without_floor(fit, observed))


def _in_units(fit: LawFit, scale: float) -> LawFit:
    """The fit with its coefficients multiplied by `scale`."""
    coefficients = fit.law.coefficients

    def pairs(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
        return {k: (lo * scale, hi * scale) if k in coefficients else (lo, hi) for k, (lo, hi) in intervals.items()}

    def single(values: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
        return {k: v * scale if k in names else v for k, v in values.items()}

    logs = np.array([math.log(scale) if k in coefficients else 0.0 for k in fit.law.parameters])
    return replace(
        fit,
        parameters=single(fit.parameters, coefficients),
        without_floor=single(fit.without_floor, coefficients),
        # Of other coefficients the standard error is that of the logarithm.
        stderr=single(fit.stderr, (fit.law.floor,) if fit.law.floor else ()),
        intervals=pairs(fit.intervals),
        delta_method=pairs(fit.delta_method),
        replicates=fit.replicates + logs,
    )


def _resampled(fitted: _Fitted, resamples: Resamples, no_floor: bool) -> Array:
    """Parameter vectors of the resamples in the units of the law, shape (K, P); one row of NaN without replicates."""
    clusters = fitted.observed.clusters
    if clusters.df < 1:
        return np.full((1, fitted.p.size), math.nan)
    start = fitted.p.copy()
    if no_floor:
        # At a floor of nothing the derivative by its logarithm is nothing, and no resample would find another.
        start[0] = np.log(SMALL_FLOOR * fitted.observed.loss.min())
    star = replicates(fitted.on, fitted.y, fitted.delta, start, clusters, resamples)
    return uncentred(fitted.on.law, fitted.on.centre, star)


def _check(law: Law, observed: Observations, delta: float, level: float, draws: int) -> None:
    require(0 < delta < math.inf, "delta", delta, "a number > 0")
    require(0 < level < 1, "level", level, "a number in (0, 1)")
    require(draws >= 20, "draws", draws, "at least 20 resamples")
    P = len(law.parameters)
    require(observed.n > P, "FILE", f"{observed.n} usable rows", f"at least {P + 1}: {law.name} has {P} parameters")
    for name in law.variables:
        values = observed.x[name]
        varies = bool(values.max() > values.min() * (1 + 1e-9))
        require(varies, name, f"{values[0]:g} in every row", f"at least two values, for {law.formula}")


def _fitted(law: Law, solution: Solution, observed: Observations, delta: float) -> _Fitted:
    on, p = solution.on, solution.p
    if law.floor is not None and law.floor in solution.zero:
        on = design(replace(on.law, floor=law.floor), observed.x, on.centre)
        p = np.append(np.log(NO_FLOOR * observed.loss.min()), p)
    y = np.log(observed.loss)
    f, J = natural_jacobian(on, p)
    return _Fitted(on, p, y, delta, observed, J, f - y)


def _values(law: Law, fitted: _Fitted, zero: tuple[str, ...]) -> dict[str, float]:
    found = named(fitted.on.law, uncentred(fitted.on.law, fitted.on.centre, fitted.p))
    return {name: 0.0 if name in zero else found.get(name, math.nan) for name in law.parameters}


def _all_names(
    law: Law, known: Mapping[str, object], missing: object, names: tuple[str, ...] | None = None
) -> dict[str, Any]:
    return {name: known.get(name, missing) for name in names or law.parameters}


def _full(law: Law, reduced: Law, p: Array) -> Array:
    """Parameter vectors of the law that is left → of the whole, −1000 for the log of a vanished coefficient and NaN for its exponent."""
    columns = [
        p[:, reduced.parameters.index(k)]
        if k in reduced.parameters
        else np.full(len(p), -1e3 if k in law.coefficients else math.nan)
        for k in law.parameters
    ]
    return np.stack(columns, axis=1)


def _logs(fitted: _Fitted) -> Array:
    on = fitted.on
    return np.stack([np.log(fitted.observed.x[name]) - on.centre[name] for name in on.law.variables], axis=1)


def _intervals(
    fitted: _Fitted, values: Mapping[str, float], star: Array, resamples: Resamples, level: float
) -> tuple[dict[str, float], dict[str, Interval], dict[str, Interval], dict[str, str]]:
    """stderr, delta-method intervals, intervals and their methods, by name, of the parameters that are left."""
    law, clusters = fitted.on.law, fitted.observed.clusters
    t = clusters.quantile(level)
    V, inverse = sandwich(fitted.J, fitted.r, fitted.delta, clusters)
    V = _moved(fitted, V)
    stderr, by_delta, intervals, methods = {}, {}, {}, {}
    for i, name in enumerate(law.parameters):
        floor = name == law.floor
        log = logarithmic(law, name) and not floor
        middle = math.log(values[name]) if log else values[name]
        draws = np.exp(star[:, i]) if floor else star[:, i]
        stderr[name] = float(np.sqrt(resamples.variance(draws))) if clusters.df > 0 else math.nan
        robust = math.sqrt(max(V[i, i], 0.0)) if clusters.df > 0 else math.nan
        by_delta[name] = _interval(middle, t * robust, log)
        intervals[name] = _interval(middle, t * stderr[name], log)
        methods[name] = "bootstrap" if clusters.df > 0 else "none"
        # Exponents and the floor are bounded below; their interval must not be cut there.
        if not log and clusters.df > 0 and intervals[name][0] <= 0:
            kappa = inverse[i, i] / V[i, i] if V[i, i] > 0 else math.inf
            intervals[name], methods[name] = _by_profile(fitted, i, middle, kappa * 2 / t**2), "profile"
    return stderr, by_delta, intervals, methods


def _moved(fitted: _Fitted, V: Array) -> Array:
    """Covariance with coefficients at the centre of the rows → in the units of the law."""
    P = fitted.p.size
    T = uncentred(fitted.on.law, fitted.on.centre, np.eye(P)) - uncentred(
        fitted.on.law, fitted.on.centre, np.zeros((1, P))
    )
    return T.T @ V @ T


def _interval(middle: float, half: float, log: bool) -> Interval:
    if not log:
        return middle - half, middle + half
    with np.errstate(over="ignore"):
        return float(np.exp(middle - half)), float(np.exp(np.minimum(middle + half, 700.0)))


def _by_profile(fitted: _Fitted, i: int, middle: float, scale: float) -> Interval:
    """Where 2 κ (F(θ) − F) = t², from a coarse and then a fine grid; `scale` is 2 κ / t²."""
    floor = fitted.on.law.parameters[i] == fitted.on.law.floor
    top = 0.999 * float(fitted.observed.loss.min()) if floor else float(fitted.on.law.limits()[1][i])
    lo, hi = 0.0, top
    for _ in range(3):
        grid = np.unique(np.concatenate([np.linspace(lo, hi, GRID), [middle]]))
        held = np.log(np.maximum(grid, NO_FLOOR * top)) if floor else grid
        F = profile(fitted.on, fitted.y, fitted.delta, fitted.p, i, held)
        height = scale * (F - F.min())
        low, high = crossings(grid, height, 1.0)
        step = grid[1:] - grid[:-1]
        lo, hi = max(0.0, low - float(step.max())), min(top, high + float(step.max()))
    return low, high


def _without_floor(fit: LawFit, observed: Observations) -> dict[str, float]:
    floor = fit.law.floor
    if floor is None or not fit.intervals[floor][0] <= 0 < fit.parameters[floor]:
        return {}
    zero = solve(replace(fit.law, floor=None), observed.x, observed.loss, fit.delta)
    return named(zero.on.law, uncentred(zero.on.law, zero.on.centre, zero.p))


def _flags(fit: LawFit, observed: Observations) -> Iterator[str]:
    if float(np.ptp(np.log(observed.loss))) < CONSTANT:
        yield "constant: the loss does not move"
    yield from _bound_flags(fit)
    yield from _window_flags(fit, observed)
    if not fit.converged:
        yield "not converged"
    if fit.condition > ILL_CONDITIONED:
        yield f"ill-conditioned: condition number {fit.condition:.3g}"
    if fit.lack_of_fit < LACK:
        yield f"lack of fit: residuals bend with the variables, p = {fit.lack_of_fit:.2g}"
    if fit.df < 1:
        yield "no replicates: no interval; a column seed with two or more seeds gives one"
    elif fit.objective > 0 and max(fit.stderr[k] for k in fit.law.exponents if k in fit.methods) < CONSTANT:
        yield "seeds identical: the intervals have no width"
    elif fit.df < 2:
        yield "two clusters only: intervals are very wide"
    lost = int(np.isnan(fit.replicates[:, 0]).sum()) if fit.df > 0 else 0
    if lost > 0.02 * len(fit.replicates):
        yield f"bootstrap: {lost} of {len(fit.replicates)} resamples did not converge"


def _bound_flags(fit: LawFit) -> Iterator[str]:
    lower, upper = (dict(zip(fit.law.parameters, bound, strict=True)) for bound in fit.law.limits())
    for name, value in fit.parameters.items():
        if name in fit.law.coefficients:
            if value == 0:
                yield f"{name} at its bound 0"
            continue
        v = math.log(value) if name == fit.law.q else value
        if v <= lower[name] + 1e-6 or v >= upper[name] - 1e-6:
            yield f"{name} at its bound {value:.4g}"
    for name in fit.law.exponents:
        if fit.intervals[name][1] >= upper[name] - 1e-6:
            yield f"{name} not determined: its interval reaches {upper[name]:g}"
    if fit.without_floor:
        moved = ", ".join(f"{k} = {fit.without_floor[k]:.4g}" for k in fit.law.exponents if k in fit.without_floor)
        yield f"{fit.law.floor} not distinguishable from 0, with which {moved}"


def _window_flags(fit: LawFit, observed: Observations) -> Iterator[str]:
    for name, decades in fit.span.items():
        count = np.unique(observed.x[name]).size
        if decades < SHORT_DECADES:
            yield f"window short: {name} spans {decades:.2g} decades"
        if count < 3:
            yield f"window short: {name} has {count} values"
    for coefficient, share in fit.shares.items():
        if coefficient != fit.law.floor and 0 < share < SMALL_SHARE:
            yield f"window short: the term of {coefficient} is at most {share:.2g} of the loss"
