"""Steps a second of a network driven by Lightning beside the same raw PyTorch loop, in the same run.

    python tests/benchmarks/bench_training.py [N ...]

The raw loop makes the same batches, the same centred network and the same optimiser. Prints microseconds a step of both (median of repeats taken in
turn), their ratio, and the largest difference of the parameters at the end. Asserts nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from functools import partial

import torch
from lightning import Trainer

from datamodules.circle import Circle
from featscale.models.mlp import MLP
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

T, B, DEPTH, REPEATS = 2000, 64, 3, 5


def network(N: int, data: Circle) -> Network:
    """The module of a run, as train.py makes it."""
    parts = {"parameterization": Scaling("mean_field", 1.0), "optimizer": SGD(0.5), "dtype": torch.float32}
    return Network(N=N, architecture=partial(MLP, depth=DEPTH), data=data, T=T, seeds=(0,), **parts)


def by_lightning(N: int) -> tuple[float, Network]:
    """Seconds of the training loop, set-up and import left out, and the trained module."""
    data = Circle(q=1.0, B=B)
    module = network(N, data)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet)
    began = []
    module.on_train_start = lambda: began.append(time.perf_counter())
    trainer.fit(module, datamodule=data)
    return time.perf_counter() - began[0], module


def by_hand(N: int) -> tuple[float, Network]:
    """Seconds of a plain loop of the same steps with the same log-spaced test losses, and the trained module."""
    data = Circle(q=1.0, B=B)
    data.setup()
    module = network(N, data)
    f = module.f
    x_test, y_test, weights = data.test_set()
    rows, logged = [], set(module.log_steps.tolist())
    start = time.perf_counter()
    for step in range(T):
        if step in logged:
            with torch.no_grad():
                rows.append(float(weights @ (f(x_test) - y_test).square().mean(1)))
        x, y = data.batch(0, step)
        loss = 0.5 * (f(x) - y).square().sum() / len(x)
        gradients = torch.autograd.grad(loss, module.tensors)
        with torch.no_grad():
            for theta, G, rate in zip(module.tensors, gradients, module.rates, strict=True):
                theta.sub_(G.mul_(rate.eta))
    return time.perf_counter() - start, module


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for N in [int(word) for word in sys.argv[1:]] or [64, 256]:
        pairs = [(by_lightning(N), by_hand(N)) for _ in range(REPEATS)]
        lightning, hand = (statistics.median(pair[i][0] for pair in pairs) for i in (0, 1))
        trained, reference = pairs[0][0][1], pairs[0][1][1]
        both = zip(trained.parameters(), reference.parameters(), strict=True)
        error = max(float((a - b).abs().max()) for a, b in both)
        print(
            f"N={N:<4} B={B}: Lightning {1e6 * lightning / T:7.1f} us/step   raw {1e6 * hand / T:7.1f} us/step   "
            f"speed {hand / lightning:.3f} of raw   largest difference of a parameter {error:.1e}"
        )
