"""Linearised networks trained on the circle beside the exact curve of infinite width, over widths, seeds and turns of the target.

    python tests/benchmarks/bench_lazy_circle.py [N ...] [--seeds S]

q = 1, 1,000 modes, three hidden layers, eta0 = 0.5, B = 256, 1,000 steps. Training is in function space, on 2,048 angles, which is what the network at
gamma = 0 does to rounding (tests/diagnostics/test_dense_kernel.py) and serves 32 turns of the target at once. Prints the relative difference of the
mean loss from the exact curve with its standard error over seeds, its largest value for t = 10 … 500, and the scatter of one network at the end.
About four seconds a seed on one core.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.circle import Circle
from datamodules.keyed import integers
from featscale.diagnostics.dense_kernel import dense_kernel, linearised_steps
from featscale.models.mlp import MLP
from featscale.parameterization import MEAN_FIELD, Centred, Layers
from featscale.theory.flow import lazy_loss
from featscale.theory.neural_tangent import circle_measure

P, K_MAX, DEPTH, B, ETA, TURNS = 2048, 1000, 3, 256, 0.5, 32
STEPS = np.unique(np.round(np.geomspace(20, 1000, 41)).astype(int))
SHOWN = (10, 47, 100, 160, 300, 500)


def losses(N: int, seed: int) -> NDArray[np.float64]:
    """Test loss at STEPS of one network for every turn of the target, shape (steps, TURNS)."""
    data = Circle(q=1.0, k_max=K_MAX, test_size=P)
    data.setup()
    x, y, _ = data.test_set()
    f0 = Centred(MLP((2,), 1, N, DEPTH, Layers(MEAN_FIELD, seed), input_power=0.5), 0.0)
    kernel = dense_kernel(f0, MEAN_FIELD, N, x)
    targets = torch.cat([y.roll(turn * P // TURNS, 0) for turn in range(TURNS)], 1)
    f, done, found = torch.zeros_like(targets), 0, []
    for step in STEPS:
        index = integers([seed], np.arange(done, step)[:, None], B, P)[:, 0]
        linearised_steps(kernel, f, targets, torch.from_numpy(index), ETA)
        done = step
        found.append((f - targets).double().square().mean(0).numpy())
    return np.array(found)


def main() -> None:
    """Print a line a width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("widths", nargs="*", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--seeds", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    t = STEPS * ETA
    exact = lazy_loss(circle_measure(1.0, K_MAX, DEPTH), t)
    for N in asked.widths:
        start = time.perf_counter()
        ratio = np.array([losses(N, seed) for seed in range(asked.seeds)]) / exact[:, None]
        per_seed = 100 * (ratio.mean(2) - 1)
        off, error = per_seed.mean(0), per_seed.std(0, ddof=1) / np.sqrt(asked.seeds)
        at = [int(np.argmin(np.abs(t - one))) for one in SHOWN]
        shown = "  ".join(f"t={t[i]:.0f}: {off[i]:+.1f} ± {error[i]:.1f} %" for i in at)
        scatter = 100 * ratio[:, -1].std()
        print(
            f"N={N:<5} {shown}   largest {np.abs(off).max():.1f} %   one network ± {scatter:.0f} %   [{time.perf_counter() - start:.0f} s]",
            flush=True,
        )


if __name__ == "__main__":
    main()
