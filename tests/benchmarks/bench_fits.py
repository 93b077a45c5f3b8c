"""Seconds of many curve fits beside one SciPy or NumPy call a curve, in the same run, and the error of each.

    python tests/benchmarks/bench_fits.py

10,000 curves of 200 points, five seeds each: exponent and interval from the seeds, (a) in a given window with a known floor beside np.polyfit for
every seed, (b) in automatic windows, (c) above a free floor beside scipy.optimize.curve_fit for the mean curve of 500 of them. Then fit_curve one at a
time, and a table of 10^7 shuffled rows. Error: rms of exponent less truth. Asserts nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import curve_fit

sys.path.insert(0, str(Path(__file__).parents[1]))

from fits.synthetic import correlated, tidy

from featscale.fits import fit_curve, fit_curves
from featscale.fits.table import read_columns

C, S, N = 10_000, 5, 200
T = np.logspace(0, 3, N)


def timed(function):
    """Result and seconds of one call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def rms(found, truth):
    return float(np.sqrt(np.nanmean((np.asarray(found) - truth) ** 2)))


def by_polyfit(loss):
    x = np.log(T)
    return [np.mean([-np.polyfit(x, np.log(seed), 1)[0] for seed in curve]) for curve in loss]


def by_curve_fit(loss):
    def law(x, chi, log_A, log_E):
        return np.logaddexp(log_E, log_A - chi * x)

    y = np.log(loss).mean(axis=1)
    return [curve_fit(law, np.log(T), each, [0.5, each[0], each[-1] - 1], maxfev=5000)[0][0] for each in y]


def report(name, seconds, curves, found, truth, peer=None):
    line = f"{name}: {seconds:.2f} s for {curves:,} curves, error {rms(found, truth):.1e}"
    if peer is not None:
        what, peer_seconds, peer_curves, peer_found, peer_truth = peer
        ratio = peer_seconds / peer_curves / (seconds / curves)
        line += f"; {what} {peer_seconds:.2f} s for {peer_curves:,}, ratio {ratio:.0f}, error {rms(peer_found, peer_truth):.1e}"
    print(line, flush=True)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    chi = rng.uniform(0.3, 1.0, C)
    noise = correlated(rng, T, (C, S), sigma=0.01)
    loss = T ** -chi[:, None, None] * noise
    few = 500
    fits, seconds = timed(lambda: fit_curves(T, loss, window=(1, 1e3)))
    theirs, peer = timed(lambda: by_polyfit(loss[:few]))
    report("known floor", seconds, C, fits.exponent, chi, ("np.polyfit", peer, few, theirs, chi[:few]))
    auto, seconds = timed(lambda: fit_curves(T, loss))
    report("automatic windows", seconds, C, auto.exponent, chi)
    above = (0.05 + T ** -chi[:, None, None]) * noise
    free, seconds = timed(lambda: fit_curves(T, above, window=(1, 1e3), floor="free"))
    theirs, peer = timed(lambda: by_curve_fit(above[:few]))
    report("free floor", seconds, C, free.exponent, chi, ("scipy curve_fit", peer, few, theirs, chi[:few]))
    one, seconds = timed(lambda: [fit_curve(*tidy(T, each), window=(1, 1e3)).exponent for each in loss[:few]])
    report("fit_curve one at a time", seconds, few, one, chi[:few])
    print(f"largest difference of the two: {np.abs(np.array(one) - fits.exponent[:few]).max():.1e}")

    t = np.arange(1.0, 10**7 / 4 + 1)
    frame = pl.DataFrame(
        {"t": np.tile(t, 4), "loss": np.tile(t**-0.5, 4), "seed": np.repeat(np.arange(4), t.size)}
    ).sample(fraction=1.0, shuffle=True, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write in ((".parquet", frame.write_parquet), (".csv", frame.write_csv)):
            path = Path(folder) / f"rows{suffix}"
            write(path)
            columns, reading = timed(lambda path=path: read_columns(path, ["t", "loss"], ["seed"]))
            fit, seconds = timed(lambda columns=columns: fit_curve(columns["t"], columns["loss"], columns["seed"]))
            print(
                f"10^7 shuffled rows{suffix}: read {reading:.1f} s, fit {seconds:.1f} s, exponent {fit.exponent:.10f}"
            )
