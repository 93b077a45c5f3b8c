"""Seconds of the gradient-flow solver beside SciPy's stiff solver on the same modes, in the same run.

    python tests/benchmarks/bench_flow.py

First line: 2,000 bins, M = 10^9, 241 times up to 10^8. Second: 200 modes, where a general solver with a dense Jacobian still finishes; ratio and largest
relative difference of the losses. Third: cost against the number of modes, with the fitted exponent. Asserts nothing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles import flow_by_ode

from featscale.spectra import PowerLaw, SpectralMeasure
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
    measure = PowerLaw(1.5, 0.5, 10**9).measure(bins=2000)
    flow, seconds = timed(lambda: gradient_flow(measure, 1.0, np.geomspace(1e-2, 1e8, 241)))
    print(
        f"2,000 bins, M = 1e9, t to 1e8: {seconds:.2f} s, {flow.steps} steps, residual {flow.residual:.1e}, {flow.status}"
    )

    measure, t = PowerLaw(1.5, 0.5, 200).measure(), np.geomspace(1e-2, 1e3, 41)
    flow, ours = timed(lambda: gradient_flow(measure, 1.0, t))
    (loss, _), theirs = timed(lambda: flow_by_ode(measure.x, measure.rho, 1.0, t, rtol=1e-9))
    error = np.abs(flow.loss / loss - 1).max()
    print(
        f"200 modes: {ours:.3f} s, scipy Radau {theirs:.3f} s, ratio {theirs / ours:.1f}, largest difference {error:.1e}"
    )

    sizes, seconds = [2_000, 8_000, 32_000, 128_000], []
    for n in sizes:
        lambdas = np.geomspace(1, 1e-9, n)
        one = SpectralMeasure(lambdas, lambdas**0.5 / n)
        seconds.append(timed(lambda one=one: gradient_flow(one, 1.0, [1e6]))[1])
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(
        f"cost ~ modes^{slope:.2f}: " + ", ".join(f"{n} modes {s:.2f} s" for n, s in zip(sizes, seconds, strict=True))
    )
