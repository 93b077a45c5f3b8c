"""Steps of networks compiled by torch.compile beside the same steps by autograd and as they are made by default, in the same run.

    python tests/benchmarks/bench_compile.py [cpu|cuda]

Prints microseconds a step (least of repeats taken in turn), the ratio, seconds to compile, and the largest relative difference of the trained
tensors. On a GPU also recorded steps (trainer.cuda_graph) and, by default, with bf16. Asserts nothing.
"""

from __future__ import annotations

import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.circle import Circle
from datamodules.keyed import generator
from datamodules.stream import Stream
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.training.execution import BF16, TF32, Execution
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

STEPS, REPEATS = 40, 5


class Images(Stream):
    """Noise of the shape of MNIST."""

    input_shape, outputs, classes, one_hot = (1, 28, 28), 10, True, True

    def batch(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for every step, so that nothing but steps is timed."""
        if not hasattr(self, "only"):
            rng = generator(seed, 0)
            x = torch.randn(int(self.B), *self.input_shape, generator=rng)
            y = torch.nn.functional.one_hot(torch.randint(10, (int(self.B),), generator=rng), 10)
            self.only = x.to(self.device, self.dtype), y.to(self.device, self.dtype)
        return self.only

    def test_set(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The batch."""
        x, y = self.batch(0, 0)
        return x, y, torch.full((len(x),), 1 / len(x), device=self.device)


def network(case: str, device: str, execution: Execution) -> Network:
    """An MLP on the circle at N = 256, B = 128, or a CNN of 16 channels on images, B = 64."""
    data: Stream = Circle(q=1.0, B=128) if case == "mlp" else Images(64)
    data.place(device, torch.float32)
    data.setup("fit")
    N, architecture = (256, partial(MLP, depth=3)) if case == "mlp" else (16, partial(CNN, depth=2))
    parts = (Scaling("mean_field", 1.0), SGD(0.05), torch.float32)
    made = Network(N, architecture, data, *parts, T=10**6, seeds=(0,), execution=execution)
    made.to(device)
    return made


def seconds(advance, start: int) -> float:
    """What STEPS steps take."""
    began = time.perf_counter()
    advance(start, start + STEPS)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def compare(case: str, device: str) -> None:
    """A table."""
    ways = {"autograd": Execution(), "default": Execution(), "compiled": Execution(compile=True)}
    if device == "cuda":
        ways |= {"graph": Execution(cuda_graph=True), "compiled graph": Execution(compile=True, cuda_graph=True)}
        ways |= {"tf32": Execution(TF32), "bf16": Execution(BF16), "bf16 graph": Execution(BF16, cuda_graph=True)}
    made = {name: network(case, device, how) for name, how in ways.items()}
    steps = {name: one.advance_by_autograd if name == "autograd" else one.advance for name, one in made.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    compiling = {}
    for name, one in made.items():
        began = time.perf_counter()
        one.on_fit_start()
        compiling[name] = time.perf_counter() - began
    # Also compiles again what was forgotten when the next one was compiled.
    for advance in steps.values():
        seconds(advance, 0)
    for i in range(REPEATS):
        for name, advance in steps.items():
            times[name].append(seconds(advance, STEPS * (1 + i)))
    for name, one in made.items():
        plain = made["autograd"].tensors
        off = max(float(((a - b).norm() / b.norm()).detach()) for a, b in zip(one.tensors, plain, strict=True))
        best = min(times[name])
        print(
            f"{case} on {device}, {name:<14} {1e6 * best / STEPS:8.0f} us a step   {min(times['autograd']) / best:5.2f} x autograd   "
            f"set-up {compiling[name]:5.1f} s   tensors off by {off:.0e}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for device in sys.argv[1:] or ["cuda" if torch.cuda.is_available() else "cpu"]:
        for case in ("mlp", "cnn"):
            compare(case, device)
