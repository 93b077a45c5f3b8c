"""Seconds and objective of a Chinchilla fit beside the usual recipe, BFGS of scipy from a grid of starts, in the same run.

    python tests/benchmarks/bench_laws.py [STARTS]

The 240 points of FEATSCALE_DATA/chinchilla if they are there, else as many synthetic ones with 0.5 % noise. The recipe is that of Hoffmann et al. 2022:
log-sum-exp of five parameters, Huber with delta = 1e-3, started from their grid of 4,500, of which STARTS (default 200) are drawn at
random. First lines: summed objective, with gradients by differences, as usual; then averaged over rows, the common mistake.
Last: 400 clustered resamples, ours alone. Asserts nothing.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from featscale.fits.law_fit import fit_law
from featscale.fits.law_solve import solve
from featscale.fits.laws import LAWS, named, uncentred
from featscale.fits.observations import observe

DELTA = 1e-3


def points():
    """N, D, loss of 240 models."""
    path = Path(os.environ.get("FEATSCALE_DATA", "")) / "chinchilla" / "svg_extracted_data.csv"
    if not path.is_file():
        rng = np.random.default_rng(0)
        N, D = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 240)), np.exp(rng.uniform(np.log(1e9), np.log(1e12), 240))
        return N, D, (1.8 + 480 * N**-0.35 + 2100 * D**-0.37) * np.exp(0.005 * rng.normal(size=240))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    N, C, loss = (np.array([float(row[k]) for row in rows]) for k in ("Model Size", "Training FLOP", "loss"))
    keep = np.sort(np.argsort(loss)[:-5])
    return N[keep], C[keep] / (6 * N[keep]), loss[keep]


def recipe(N, D, loss, starts, average=False):
    """Objectives, summed, and parameters (a, b, e, alpha, beta) of BFGS from each start."""
    log_N, log_D, y = np.log(N), np.log(D), np.log(loss)
    scale = 1 / y.size if average else 1.0

    def objective(p):
        a, b, e, alpha, beta = p
        f = logsumexp(np.stack([a - alpha * log_N, b - beta * log_D, np.full_like(y, e)]), axis=0)
        return scale * float(huber(DELTA, f - y).sum())

    found = [minimize(objective, p, method="BFGS") for p in starts]
    return np.array([result.fun / scale for result in found]), np.array([result.x for result in found])


def grid(count):
    """`count` starts of the published grid, drawn without replacement."""
    axes = (
        np.arange(0, 26, 5),
        np.arange(0, 26, 5),
        np.arange(-1, 1.1, 0.5),
        np.arange(0, 2.1, 0.5),
        np.arange(0, 2.1, 0.5),
    )
    whole = np.array(list(itertools.product(*axes)), dtype=float)
    return whole[np.random.default_rng(0).choice(len(whole), count, replace=False)]


def main(count):
    N, D, loss = points()
    start = time.perf_counter()
    ours = solve(LAWS["chinchilla"], {"N": N, "D": D}, loss, DELTA)
    seconds = time.perf_counter() - start
    values = named(ours.on.law, uncentred(ours.on.law, ours.on.centre, ours.p))
    print(
        f"featscale: {seconds:.3f} s, objective {ours.objective:.7e}, alpha {values['alpha']:.5f}, beta {values['beta']:.5f}"
    )
    for average in (False, True):
        start = time.perf_counter()
        with np.errstate(all="ignore"):
            objectives, p = recipe(N, D, loss, grid(count), average)
        theirs = time.perf_counter() - start
        best = int(np.argmin(objectives))
        near = np.mean(objectives < ours.objective * 1.001)
        print(
            f"BFGS, {count} starts, {'averaged' if average else 'summed'}: {theirs:.1f} s, ratio {theirs / seconds:.0f}, objective {objectives[best]:.7e} "
            f"({objectives[best] / ours.objective - 1:+.1e}), alpha {p[best, 3]:.5f}, beta {p[best, 4]:.5f}; "
            f"{100 * near:.0f} % of the starts within 1e-3 of ours"
        )
    observed = observe({"N": N, "D": D, "loss": loss}, ("N", "D"))
    start = time.perf_counter()
    fit = fit_law("chinchilla", observed, start=values)
    print(
        f"400 resamples: {time.perf_counter() - start:.2f} s, alpha in {fit.intervals['alpha']}, by the sandwich {fit.delta_method['alpha']}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
