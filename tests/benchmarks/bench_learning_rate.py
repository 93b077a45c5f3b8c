"""The best learning rate at several widths, mean-field and standard, SGD and Adam: does what is tuned at N = 64 hold at N = 1024?

    python tests/benchmarks/bench_learning_rate.py [N ...]

An MLP with three hidden layers on the circle (q = 1.2, gamma = 1), T = 60 steps of B = 64, rates a factor √2 apart, the mean of log loss over seeds at
the end. Prints each best rate, from a parabola through the smallest loss and its neighbours, and how far it moves. About three minutes on one core.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import numpy as np
import torch

from datamodules.circle import Circle
from featscale.models.mlp import MLP
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam
from featscale.training.scaling import Scaling

T, B, DEPTH = 60, 64, 3
HALVINGS = np.arange(-3, 4) / 2
CASES = {
    ("mean_field", "sgd"): lambda eta0, N: SGD(0.25 * eta0),
    ("mean_field", "adam"): lambda eta0, N: Adam(0.16 * eta0),
    # Centred where the best rate would be if it fell as 1/N, so that the grid holds it at every width.
    ("standard", "sgd"): lambda eta0, N: SGD(0.7 * eta0 / N),
    ("standard", "adam"): lambda eta0, N: Adam(0.08 * eta0 / N),
}


def final_loss(row: str, optimizer: SGD | Adam, N: int, seed: int) -> float:
    """Log of the test loss after T steps; infinite where it is not finite."""
    data = Circle(q=1.2, k_max=100, B=B)
    data.setup()
    module = Network(
        N=N,
        architecture=partial(MLP, depth=DEPTH),
        data=data,
        parameterization=Scaling(row, 1.0),
        optimizer=optimizer,
        dtype=torch.float32,
        T=T,
        seeds=(seed,),
    )
    module.on_fit_start()
    module.advance(0, T)
    loss = float(module.observe()[0]["loss"])
    return float(np.log(loss)) if np.isfinite(loss) and loss > 0 else float("inf")


def best(row: str, name: str, N: int) -> tuple[float, bool]:
    """The best eta0 at width N, and whether it lies inside the grid."""
    seeds = range(max(2, min(6, 512 // N)))
    optimizers = [CASES[row, name](2**h, N) for h in HALVINGS]
    losses = np.array([np.mean([final_loss(row, optimizer, N, s) for s in seeds]) for optimizer in optimizers])
    i = int(np.argmin(losses))
    inside = 0 < i < len(losses) - 1 and bool(np.isfinite(losses[i - 1 : i + 2]).all())
    shift = 0.0
    if inside:
        left, middle, right = losses[i - 1 : i + 2]
        shift = 0.5 * (left - right) / (left - 2 * middle + right) * (HALVINGS[1] - HALVINGS[0])
    return optimizers[i].eta0 * 2**shift, inside


if __name__ == "__main__":
    torch.set_num_threads(1)
    widths = [int(word) for word in sys.argv[1:]] or [64, 256, 1024]
    for row, name in CASES:
        start, found = time.perf_counter(), [best(row, name, N) for N in widths]
        rates = [rate for rate, _ in found]
        shown = "   ".join(
            f"N={N}: {rate:.3g}{'' if inside else ' (edge)'}" for N, (rate, inside) in zip(widths, found, strict=True)
        )
        moved = max(rates) / min(rates)
        print(
            f"{row:<10} {name:<4}  {shown}   moves by {moved:.2f}x   [{time.perf_counter() - start:.0f} s]", flush=True
        )
