"""Which run to do next, so that the interval of an exponent shrinks most for a given budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featscale.errors import BadInput, require
from featscale.fits.law_fit import LawFit, fit_law
from featscale.fits.laws import Design, Law, centred, design, evaluate, law_named, vector
from featscale.fits.observations import Observations

Array = NDArray[np.float64]
Criterion = Literal["c", "D"]

# A run has this many rows a decade of t in the calculation; their noise is correlated, so that more say little.
PER_DECADE = 8
# Widths tried: half-octaves from half the least measured to four times the largest; a budget is halved this often into more seeds.
BELOW, ABOVE, HALVINGS = 2, 4, 6
CORRELATION = (0.0, 0.999)


@dataclass(frozen=True)
class Noise:
    """Noise of log loss along a run: variance sigma², correlation exp(−|Δ log t| / tau); independent between runs."""

    sigma: float
    tau: float

    def whitened(self, log_t: Array, J: Array) -> Array:
        """Rows J of one run, shape (n, P), multiplied by Σ^{-1/2}; log_t ascending, shape (n,)."""
        step = np.diff(log_t)
        rho = np.exp(-step / self.tau) if self.tau > 0 else np.zeros_like(step)
        out = J / self.sigma
        out[1:] = (J[1:] - rho[:, None] * J[:-1]) / (self.sigma * np.sqrt(1 - rho**2))[:, None]
        return out


@dataclass(frozen=True)
class NextRun:
    """`seeds` runs of width N up to flow time t at richness gamma, NaN if there is one only; cost in N · t, of all seeds.

    half_width_now, half_width_after: of the target's interval. gain: what the criterion rises by. extrapolates: N or t is beyond what was measured.
    """

    N: float
    t: float
    gamma: float
    seeds: int
    cost: float
    half_width_now: float
    half_width_after: float
    gain: float
    extrapolates: bool


@dataclass(frozen=True)
class _Group:
    """What is known at one richness: fit, rows, information matrix M of the parameters that are left, noise, index of the target."""

    gamma: float
    fit: LawFit
    observed: Observations
    on: Design
    p: Array
    M: Array
    noise: Noise
    target: int


def next_runs(
    groups: Mapping[float, Observations],
    budget: float,
    *,
    law: str = "sum",
    target: str = "chi",
    criterion: Criterion = "c",
    count: int = 5,
    draws: int = 200,
) -> list[NextRun]:
    r"""The `count` best ways to spend `budget`, best first.

    .. math:: M = \sum_{\text{runs}} J^T \Sigma^{-1} J,\qquad \text{c: } \Delta\, e^T M^{-1} e,\qquad \text{D: } \Delta \log\det M

    M is the information of the runs there are, with Σ the exponentially correlated noise their residuals show; a candidate adds its own. "c"
    lowers the variance of the target, summed over the values of gamma, which is that of a lazy-minus-rich difference; "D" shrinks the
    confidence ellipsoid of all parameters. The interval after is the one now times the predicted ratio of standard errors.
    Source: Fedorov 1972; Pronzato & Pázman 2013 (local designs); derived; tests/fits/test_next_run.py.
    Arguments: groups, gamma → rows (NaN for a table without gamma). budget > 0 in units of N t. target, an exponent of the law.
    Returns: at most `count` of :class:`NextRun`, no two of one width and richness.
    Raises: BadInput for a law with other variables than t and N, an unknown target, a budget that buys nothing, rows without any noise.
    """
    row = law_named(law)
    require(set(row.variables) == {"t", "N"}, "law", law, "a law of t and N")
    require(target in row.exponents, "target", target, f"one of {', '.join(row.exponents)}")
    require(0 < budget < math.inf, "budget", budget, "a number > 0, in units of N t")
    require(count >= 1, "count", count, "at least 1")
    if criterion not in ("c", "D"):
        raise BadInput("criterion", criterion, "c or D")
    known = [_group(gamma, observed, row, target, draws) for gamma, observed in groups.items()]
    found = [run for group in known for run in _candidates(group, budget, criterion)]
    require(bool(found), "budget", budget, "enough for one run of the smallest width")
    best: dict[tuple[str, float], NextRun] = {}
    for run in sorted(found, key=lambda run: -run.gain):
        best.setdefault((str(run.gamma), run.N), run)
    return list(best.values())[:count]


def noise_of(observed: Observations, r: Array) -> Noise:
    """Variance of the residuals and the correlation time, in log t, of neighbouring rows of a run."""
    sigma = float(np.sqrt(np.mean(r**2)))
    require(
        sigma > 1e-9, "loss", f"residuals of {sigma:.1g}", "rows with some noise, to know what a further run would tell"
    )
    product, gap = [], []
    for rows in _runs(observed):
        product.append(r[rows][1:] * r[rows][:-1])
        gap.append(np.diff(np.log(observed.x["t"][rows])))
    pairs = np.concatenate(product)
    rho = float(np.clip(pairs.mean() / sigma**2, *CORRELATION)) if pairs.size else 0.0
    return Noise(sigma, float(np.mean(np.concatenate(gap))) / -math.log(rho) if rho > 0 else 0.0)


def _runs(observed: Observations) -> Iterator[NDArray[np.int64]]:
    """Rows of each run in order of t."""
    code = observed.config if observed.seed is None else observed.config * (observed.seed.max() + 1) + observed.seed
    for label in np.unique(code):
        rows = np.flatnonzero(code == label)
        yield rows[np.argsort(observed.x["t"][rows])]


def _group(gamma: float, observed: Observations, law: Law, target: str, draws: int) -> _Group:
    fit = fit_law(law, observed, draws=draws)
    reduced = law
    for name in law.coefficients:
        reduced = reduced.without(name) if fit.parameters[name] == 0 else reduced
    require(
        target in reduced.exponents, "target", target, f"an exponent whose term does not vanish, of {reduced.formula}"
    )
    on = design(reduced, observed.x)
    p = centred(reduced, on.centre, vector(reduced, fit.parameters))
    at = evaluate(on, p[None])
    noise = noise_of(observed, at.f[0] - np.log(observed.loss))
    M = np.zeros((p.size, p.size))
    for rows in _runs(observed):
        W = noise.whitened(np.log(observed.x["t"][rows]), at.J[0, rows])
        M += W.T @ W
    return _Group(gamma, fit, observed, on, p, M, noise, reduced.parameters.index(target))


def _candidates(group: _Group, budget: float, criterion: Criterion) -> Iterator[NextRun]:
    N, t = group.observed.x["N"], group.observed.x["t"]
    octaves = np.arange(math.ceil(2 * math.log2(ABOVE * BELOW * N.max() / N.min())) + 1) / 2
    widths = np.unique(np.concatenate([np.unique(N), np.round(N.min() / BELOW * 2**octaves)]))
    i = group.target
    inverse = np.linalg.inv(group.M)
    now = _half_width(group, i)
    for width in widths[(widths >= 1) & (widths <= ABOVE * N.max())]:
        for halving in range(HALVINGS):
            end, seeds = budget / width / 2**halving, 2**halving
            if end < 4 * t.min():
                break
            M = group.M + seeds * _information(group, width, float(t.min()), end)
            after = np.linalg.inv(M)
            gain = (
                inverse[i, i] - after[i, i]
                if criterion == "c"
                else np.linalg.slogdet(M)[1] - np.linalg.slogdet(group.M)[1]
            )
            ratio = math.sqrt(after[i, i] / inverse[i, i])
            beyond = bool(width > N.max() or width < N.min() or end > t.max() * (1 + 1e-9))
            yield NextRun(float(width), end, group.gamma, seeds, budget, now, now * ratio, float(gain), beyond)


def _information(group: _Group, N: float, start: float, end: float) -> Array:
    """J^T Σ^{-1} J of one run."""
    t = np.geomspace(start, end, 2 + math.ceil(PER_DECADE * math.log10(end / start)))
    on = design(group.on.law, {"N": np.full(t.size, N), "t": t}, group.on.centre)
    W = group.noise.whitened(np.log(t), evaluate(on, group.p[None]).J[0])
    return np.asarray(W.T @ W, np.float64)


def _half_width(group: _Group, i: int) -> float:
    """Of the target's interval; without replicates, two standard errors of the model of the noise."""
    lo, hi = group.fit.intervals[group.on.law.parameters[i]]
    return (hi - lo) / 2 if math.isfinite(hi - lo) else 2 * math.sqrt(np.linalg.inv(group.M)[i, i])
