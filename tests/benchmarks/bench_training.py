"""Steps a second of a network driven by Lightning, beside the same steps without it and beside a raw PyTorch loop, in the same run.

    python tests/benchmarks/bench_training.py [N ...]

All make the same batches, centred network and optimiser, and the same rows of the curve. Prints microseconds a step of each (the least of repeats taken
in turn), their ratios, and the largest relative difference of the last test loss from the raw loop's. Asserts nothing.
"""

from __future__ import annotations

import logging
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

T, B, DEPTH, REPEATS = 2000, 64, 3, 8


def network(N: int, data: Circle) -> Network:
    """The module of a run, as train.py makes it."""
    parts = {"parameterization": Scaling("mean_field", 1.0), "optimizer": SGD(0.1), "dtype": torch.float32}
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


def prepared(N: int) -> tuple[Circle, Network]:
    """The data and the module as they are before the first step."""
    data = Circle(q=1.0, B=B)
    data.setup()
    module = network(N, data)
    module.on_fit_start()
    return data, module


def by_march(N: int) -> tuple[float, Network]:
    """Seconds of the module's steps and rows without Lightning, and the trained module."""
    _, module = prepared(N)
    start = time.perf_counter()
    module.march.to(T)
    return time.perf_counter() - start, module


def by_hand(N: int) -> tuple[float, Network]:
    """Seconds of a plain loop of the same steps with the same log-spaced test losses, and the trained module."""
    data, module = prepared(N)
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
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for N in [int(word) for word in sys.argv[1:]] or [64, 256]:
        ways = {"Lightning": by_lightning, "without": by_march, "raw": by_hand}
        times: dict[str, list[float]] = {name: [] for name in ways}
        loss = {}
        for _ in range(REPEATS):
            for name, way in ways.items():
                seconds, module = way(N)
                times[name].append(1e6 * seconds / T)
                loss[name] = module.observe()[0]["loss"]
        best = {name: min(values) for name, values in times.items()}
        print(
            f"N={N:<4} B={B}: "
            + "   ".join(f"{name} {value:.1f}" for name, value in best.items())
            + f" us/step   {best['without'] / best['Lightning']:.3f} of the speed without Lightning, {best['raw'] / best['Lightning']:.2f} x raw   "
            f"test loss off by {abs(loss['Lightning'] / loss['raw'] - 1):.1e}"
        )
