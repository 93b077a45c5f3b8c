"""Networks × steps a second of a stacked ensemble beside one-at-a-time PyTorch and beside jax.vmap + lax.scan, in the same run.

    python tests/benchmarks/bench_ensemble.py [N ...] [--members 64] [--steps 200] [--threads 2]

64 MLPs of three hidden layers with their own seeds and richness, B = 64, on the circle. Both peers train the same networks on the same batches; PyTorch's is a
plain loop of autograd and torch.optim.SGD over g(θ), timed on four networks. All may use the same cores. Prints microseconds a network and step (the best of
repeats taken in turn), the ratios, and the largest relative difference of the test loss at the end from PyTorch's in float64. Asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from datamodules.circle import Circle
from featscale.models.mlp import MLP
from featscale.training.ensemble import Ensemble
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

B, DEPTH, ETA0, REPEATS, TIMED = 64, 3, 0.3, 8, 2


def networks(N: int, E: int, T: int, data: Circle, dtype: torch.dtype = torch.float32) -> list[Network]:
    """E networks, each with its seed and richness."""
    made = []
    for seed in range(E):
        parts = {"parameterization": Scaling("mean_field", 0.2 + seed / E), "optimizer": SGD(ETA0), "dtype": dtype}
        network = Network(N=N, architecture=partial(MLP, depth=DEPTH), data=data, T=T, seeds=(seed,), **parts)
        network.test = data.test_set()
        made.append(network)
    return made


def losses(made: list[Network]) -> torch.Tensor:
    """Test loss of each."""
    return torch.tensor([network.observe()[0]["loss"] for network in made], dtype=torch.float64)


class PlainTorch:
    """One network as one would write it: two modules, autograd, torch.optim.SGD."""

    def __init__(self, network: Network) -> None:
        self.network, self.gamma = network, network.f.gamma
        self.start, self.g = network.f.trained(), network.f.trained().requires_grad_(True)
        self.optimizer = torch.optim.SGD(self.g.parameters(), lr=ETA0 * self.gamma**2 * network.N)

    def f(self, x: torch.Tensor) -> torch.Tensor:
        """The centred output."""
        with torch.no_grad():
            start = self.start(x)
        return (self.g(x) - start) / self.gamma

    def train(self, T: int) -> None:
        """T steps."""
        for step in range(T):
            x, y = self.network.data.batch(self.network.seeds[0], step)
            self.optimizer.zero_grad(set_to_none=True)
            (0.5 * (self.f(x) - y).square().sum() / B).backward()
            self.optimizer.step()

    @torch.no_grad()
    def loss(self) -> float:
        """Test loss."""
        x, y, weights = self.network.test
        return float(weights.double() @ (self.f(x).double() - y.double()).square().mean(1))


def by_jax(made: list[Network], T: int) -> Callable[[], Any]:
    """The same training as one compiled function; batches are made before the clock starts, which favours it."""
    import jax
    import jax.numpy as jnp

    modules = [dict(network.f.g.named_modules()) for network in made]
    names = [name for name, _ in made[0].f.g.chain()]
    scales = [modules[0][name].multiplier for name in names]
    gain, gamma = made[0].f.g.phi.gain, jnp.array([network.f.gamma for network in made])
    start = [jnp.stack([jnp.array(module[name].weight.detach().numpy().T) for module in modules]) for name in names]

    def g(weights: Any, x: Any) -> Any:
        for l, (W, scale) in enumerate(zip(weights, scales, strict=True)):
            x = scale * (x if l == 0 else gain * jax.nn.relu(x)) @ W
        return x

    def loss(moved: Any, weights: Any, gamma: Any, x: Any, y: Any) -> Any:
        f = (g([W + gamma * d for W, d in zip(weights, moved, strict=True)], x) - g(weights, x)) / gamma
        return 0.5 * jnp.sum((f - y) ** 2) / B

    def step(moved: Any, batch: Any) -> Any:
        slopes = jax.vmap(jax.grad(loss))(moved, start, gamma, *batch)
        return [d - ETA0 * made[0].N * slope for d, slope in zip(moved, slopes, strict=True)], None

    x, y = made[0].data.batches([network.seeds[0] for network in made], 0, T)
    batches = (jnp.array(x.numpy()), jnp.array(y.numpy()))
    train = jax.jit(lambda moved, batches: jax.lax.scan(step, moved, batches)[0])
    moved = [jnp.zeros_like(W) for W in start]
    jax.block_until_ready(train(moved, batches))
    return lambda: jax.block_until_ready(train(moved, batches))


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(N: int, E: int, T: int, threads: int) -> None:
    """One line for width N."""
    data = Circle(q=1.0, B=B)
    data.setup()
    stacked = networks(N, E, T, data)
    jax_train = by_jax(stacked, T)
    times: dict[str, list[float]] = {"stack": [], "torch": [], "jax": []}
    for _ in range(REPEATS):
        for network in stacked:
            for tensor in network.tensors:
                tensor.detach().zero_()
        plain = [PlainTorch(network) for network in stacked[:TIMED]]
        times["stack"].append(seconds(lambda: Ensemble(stacked, threads).advance(0, T)) / E)
        times["torch"].append(seconds(lambda: [one.train(T) for one in plain]) / TIMED)  # noqa: B023
        times["jax"].append(seconds(jax_train) / E)
    exact = Circle(q=1.0, B=B)
    exact.place("cpu", torch.float64)
    exact.setup()
    reference = [PlainTorch(network) for network in networks(N, TIMED, T, exact, torch.float64)]
    for network, one in zip(stacked, reference, strict=False):
        one.gamma = network.f.gamma
        one.optimizer = torch.optim.SGD(one.g.parameters(), lr=ETA0 * one.gamma**2 * N)
        one.train(T)
    error = torch.tensor([one.loss() for one in reference], dtype=torch.float64) / losses(stacked)[:TIMED] - 1
    best = {name: 1e6 * min(values) / T for name, values in times.items()}
    print(
        f"N={N:<3} E={E} B={B} T={T}: stack {best['stack']:6.1f}   torch {best['torch']:6.1f}   jax {best['jax']:6.1f} us a network and step   "
        f"{best['torch'] / best['stack']:5.2f} x torch   {best['jax'] / best['stack']:5.2f} x jax   "
        f"test loss off by {float(error.abs().max()):.1e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("N", nargs="*", type=int, default=[32, 64])
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    for width in asked.N:
        compare(width, asked.members, asked.steps, asked.threads)
