"""How far fewer digits take a loss curve from float64's, on a CPU: float32, tf32 (emulated: operands of all products rounded), bf16.

    python tests/benchmarks/bench_precision.py [circle] [mnist]

For each richness the relative difference of the test loss from the same run in float64, its root mean square and its largest over the rows, and
the last loss; and as a measure, that of another seed. Asserts nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rounding import Rounded

from datamodules.circle import Circle
from datamodules.mnist import MNIST
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.training.execution import PRECISIONS, Execution
from featscale.training.march import March
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

Make = Callable[..., Network]


def circle(precision: str, gamma: float, seed: int) -> Network:
    """conf/experiment/circle_q at scale=small, half as long."""
    data = Circle(q=1.0, k_max=1000, B=128)
    return network(data, partial(MLP, depth=3), precision, gamma, seed, N=256, eta0=0.08, T=1000)


def mnist(precision: str, gamma: float, seed: int) -> Network:
    """A small convolutional network on the real images."""
    data = MNIST(folder=os.environ["FEATSCALE_DATA"], B=64)
    return network(data, partial(CNN, depth=2), precision, gamma, seed, N=16, eta0=0.2, T=100)


def network(data, architecture, precision: str, gamma: float, seed: int, N: int, eta0: float, T: int) -> Network:
    """Ready for its first step."""
    how = PRECISIONS[precision]
    data.place("cpu", how.dtype)
    data.prepare_data()
    data.setup("fit")
    made = Network(
        N,
        architecture,
        data,
        Scaling("mean_field", gamma),
        SGD(eta0),
        how.dtype,
        T=T,
        seeds=(seed,),
        rows_per_decade=12,
        execution=Execution(how.products),
    )
    made.on_fit_start()
    if precision == "tf32":
        advance = made.advance

        def emulated(start: int, stop: int) -> None:
            with Rounded():
                advance(start, stop)

        made.advance = emulated
    return made


def curve(made: Network) -> torch.Tensor:
    """Its test losses."""
    March([made], 100).to(made.T)
    return torch.tensor([row["loss"] for row in made.rows], dtype=torch.float64)


def compare(make: Make, gammas: tuple[float, ...]) -> None:
    """A table."""
    for gamma in gammas:
        exact = curve(make("float64", gamma, 0))
        print(f"{make.__name__}, gamma = {gamma:g}: float64 ends at {float(exact[-1]):.4g}", flush=True)
        for name, seed in (("float32", 0), ("tf32", 0), ("bf16", 0), ("float32", 1)):
            off = (curve(make(name, gamma, seed)) / exact - 1).abs()
            label = name if seed == 0 else "another seed"
            print(
                f"  {label:<12}  rms {float(off.square().mean().sqrt()):.1e}  largest {float(off.max()):.1e}  last {float(off[-1]):.1e}",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = sys.argv[1:] or ["circle", "mnist"]
    if "circle" in asked:
        compare(circle, (1.0, 0.1, 0.02))
    if "mnist" in asked:
        compare(mnist, (1.0, 0.1))
