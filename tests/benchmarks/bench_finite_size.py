"""Seconds of the deterministic measures of finite width and finite data, with their errors, beside averages over draws.

    python tests/benchmarks/bench_finite_size.py

First block: cost of finite_width against N at M = 10^9, with the fitted exponent. Second: one draw of A(0) and its flow, beside the equivalent's, at
N = 512. Third: data_equivalent, 20 times, against P. Asserts nothing.
"""

from __future__ import annotations

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


if __name__ == "__main__":
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
