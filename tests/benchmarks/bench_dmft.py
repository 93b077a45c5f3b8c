"""Mean-field theory: marched beside the fixed point, the marched cost in T and bins, and long runs by `sgd`.

    python tests/benchmarks/bench_dmft.py [--full]

Prints seconds and the relative difference of the losses, then the exponent of the cost between neighbouring sizes. Asserts nothing.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from featscale.spectra import PowerLaw
from featscale.theory.dmft import dmft
from featscale.theory.sgd import sgd

TASK = PowerLaw(1.5, 0.5, 10**4)


def timed(function, *arguments, **options):
    """The result of a call and its wall seconds."""
    start = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - start


def two_methods(T: int) -> None:
    """One line: both solutions of the same equations."""
    (fast, ours), (slow, theirs) = (
        timed(dmft, TASK, 64, 32, 0.1, 1.0, T, bins=60, method=m) for m in ("marched", "iterated")
    )
    print(
        f"T={T:<5} bins=60: marched {ours:7.2f} s   iterated {theirs:7.2f} s   ratio {theirs / ours:6.1f}   "
        f"difference of the loss {np.abs(fast.loss / slow.loss - 1).max():.1e}"
    )


def cost(bins: int, steps: list[int]) -> None:
    """A line a size: seconds, the exponent in T from the size before, the residual."""
    before = None
    for T in steps:
        run, seconds = timed(dmft, TASK, 64, 32, 0.1, 1.0, T, bins=bins)
        exponent = "" if before is None else f"   exponent in T {math.log(seconds / before) / math.log(2):.2f}"
        print(f"T={T:<5} bins={bins:<4}: marched {seconds:7.2f} s   residual {run.residual:.0e}{exponent}")
        before = seconds


def long_run(T: int, gamma: float) -> None:
    """One line: a run of T steps by `sgd`, with its error against the discrete theory at 400 of them."""
    _, seconds = timed(sgd, PowerLaw(1.5, 0.5, 10**9), math.inf, 32, 0.02, gamma, T)
    short, discrete = sgd(TASK, math.inf, 32, 0.02, gamma, 400), dmft(TASK, math.inf, 32, 0.02, gamma, 400, bins=120)
    error = np.abs(short.loss / discrete.loss[short.step] - 1).max()
    print(f"T={T:.0e} gamma={gamma}: sgd {seconds:6.2f} s   largest error of the loss, T = 400: {error:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also 120 bins and the fixed point at T = 240 (minutes)")
    full = parser.parse_args().full
    for T in (60, 120, 240) if full else (60, 120):
        two_methods(T)
    for bins in (15, 60, 120) if full else (60,):
        cost(bins, [125, 250, 500, 1000])
    for gamma in (0.0, 1.0):
        long_run(10**6, gamma)
