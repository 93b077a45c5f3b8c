"""Seconds of the deterministic measures of finite width and finite data, with their errors, beside averages over draws.

    python tests/benchmarks/bench_finite_size.py [--full]

First block: cost of finite_width against N at M = 10^9, with the fitted exponent. Second: one draw of A(0) and its flow, beside the equivalent's, at
N = 512. Third: data_equivalent, 20 times, against P. With --full, a fourth: the largest distance of theory from the mean of 64 draws at N = 2048, in
standard errors, on the five tasks of tests/theory/test_finite_width.py (about a quarter of an hour). Asserts nothing.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from featscale.simulate.problem import draw
from featscale.spectra import PowerLaw
from featscale.theory.data_equivalent import data_equivalent
from featscale.theory.finite_width import finite_width
from featscale.theory.flow import gradient_flow


def timed(function):
    """Result and the least seconds of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return result, min(times)


def distance(alpha, beta, gamma, N=2048, M=4096, draws=64):
    """One line: theory against draws at 26 times from 0 to 10^5, and infinite width for scale."""
    task, t = PowerLaw(alpha, beta, M), np.concatenate([[0.0], np.geomspace(0.1, 1e5, 25)])
    loss = np.array([gradient_flow(draw(task, N, seed).measure(), gamma, t, rtol=1e-3).loss for seed in range(draws)])
    mean, error = loss.mean(axis=0), loss.std(axis=0, ddof=1) / np.sqrt(draws)
    ours, infinite = (
        np.abs(gradient_flow(m, gamma, t).loss - mean)[1:] / error[1:]
        for m in (finite_width(task, N).measure, task.measure())
    )
    print(
        f"N = {N}, alpha = {alpha}, beta = {beta}, gamma = {gamma}, {draws} draws: largest distance "
        f"{ours.max():.2f} standard errors (median {np.median(ours):.2f}); infinite width {infinite.max():.0f}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also 64 draws at N = 2048 on five tasks")
    full = parser.parse_args().full
    task, widths, seconds = PowerLaw(1.5, 0.5, 10**9), [10**3, 10**4, 10**5, 10**6], []
    for N in widths:
        result, spent = timed(lambda N=N: finite_width(task, N))
        seconds.append(spent)
        print(f"N = {N}: {spent:.3f} s, {result.measure.x.size} nodes, residual {result.residual:.1e}")
    print(f"cost ~ N^{np.polyfit(np.log(widths), np.log(seconds), 1)[0]:.2f}")

    task, t = PowerLaw(1.5, 0.5, 2000), np.geomspace(0.1, 1e4, 30)
    result, ours = timed(lambda: gradient_flow(finite_width(task, 512).measure, 1.0, t))
    _, one = timed(lambda: gradient_flow(draw(task, 512, 0).measure(), 1.0, t))
    print(f"N = 512, M = 2000: equivalent and flow {ours:.2f} s, one draw and its flow {one:.2f} s")

    task, t = PowerLaw(1.5, 0.5, 10**9), np.geomspace(0.1, 1e5, 20)
    for P, N in ((100, None), (10**4, None), (10**4, 1000)):
        flow, spent = timed(lambda P=P, N=N: data_equivalent(task, P, 1.0, t, N, 0.3))
        print(f"P = {P}, N = {N}: {spent:.2f} s, residual {flow.residual:.1e}")

    if full:
        for case in ((1.5, 0.3, 1.0), (1.5, 0.5, 1.0), (1.5, 1.25, 1.0), (2.0, 2.5, 1.0), (1.2, 0.75, 10.0)):
            distance(*case)
