"""The network module: the steps it makes, its rows, and what it refuses."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer

from datamodules.circle import Circle
from datamodules.power_law import PowerLawFeatures
from featscale.errors import BadInput
from featscale.models.mlp import MLP
from featscale.training.loss import CrossEntropy
from featscale.training.network import Network
from featscale.training.optimizer import SGD
from featscale.training.scaling import Scaling

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def network(data, T=40, N=16, gamma=1.0, chunk=100, eta0=0.5, **changes):
    data.place("cpu", torch.float64)
    parts = {
        "parameterization": Scaling("mean_field", gamma),
        "optimizer": SGD(eta0),
        "dtype": torch.float64,
        "seeds": (0,),
    }
    return Network(N=N, architecture=partial(MLP, depth=2), data=data, T=T, chunk=chunk, **(parts | changes))


def fit(module, data):
    with pytest.warns():  # Lightning advises on data loading
        Trainer(accelerator="cpu", devices=1, max_epochs=1, **QUIET).fit(module, datamodule=data)
    return module


def test_lightning_makes_the_steps_of_a_raw_loop():
    data = Circle(q=1.0, k_max=20, B=32)
    module = fit(network(data, chunk=7), data)
    raw = network(data)
    optimizer = raw.configure_optimizers()
    for step in range(40):
        x, y = data.batch(0, step)
        optimizer.zero_grad()
        (0.5 * (raw.f(x) - y).square().mean()).backward()
        optimizer.step()
    for trained, expected in zip(module.f.g.parameters(), raw.f.g.parameters(), strict=True):
        assert torch.equal(trained, expected)


def test_rows_are_log_spaced_and_start_at_the_target_power():
    data = Circle(q=1.0, k_max=20, B=32)
    module = fit(network(data), data)
    curve = module.curve()
    assert curve["step"].to_list() == module.log_steps.tolist()
    assert curve["t"].to_numpy() == pytest.approx(0.5 * module.log_steps)
    # f(θ₀) = 0, so the first loss is Σ k^-2q / 2.
    assert curve["loss"][0] == pytest.approx(0.5 * np.sum(np.arange(1, 21) ** -2.0), rel=1e-12)
    assert curve["loss"][-1] < 0.5 * curve["loss"][0]


def test_octaves_of_the_test_loss_stand_beside_it():
    data = Circle(q=1.0, k_max=20, B=32, modes=True)
    curve = fit(network(data, T=20), data).curve()
    bands = [name for name in curve.columns if name.startswith("band_")]
    assert len(bands) == 11
    assert curve.select(bands).sum_horizontal().to_numpy() == pytest.approx(curve["loss"].to_numpy(), rel=1e-10)


def test_initial_speed_does_not_depend_on_richness():
    data = Circle(q=1.0, k_max=20, B=float("inf"))
    first = [fit(network(data, T=1, gamma=gamma, eta0=1e-3), data).curve()["loss"][-1] for gamma in (0.1, 1.0)]
    start = 0.5 * np.sum(np.arange(1, 21) ** -2.0)
    assert start - first[0] == pytest.approx(start - first[1], rel=0.02)


def test_a_network_learns_gaussian_features_too():
    data = PowerLawFeatures(alpha=1.5, beta=1.2, M=10, B=32, test_size=256)
    curve = fit(network(data, T=200, N=32), data).curve()
    assert curve["loss"][-1] < 0.5 * curve["loss"][0]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: network(Circle(q=1.0, B=8), seeds=(0, 1)), "seeds"),
        (lambda: network(PowerLawFeatures(1.5, 0.5, 10)), "data.B"),
        (lambda: network(Circle(q=1.0, B=8), gamma=0.0), "parameterization.gamma"),
        (lambda: network(Circle(q=1.0, B=8), N=0), "model.N"),
        (lambda: network(Circle(q=1.0, B=8), T=0), "steps"),
        (lambda: network(Circle(q=1.0, B=8), chunk=0), "trainer.chunk"),
        (lambda: SGD(-1.0), "optimizer.eta0"),
        (lambda: network(Circle(q=1.0, B=8), loss=CrossEntropy()), "loss"),
        (lambda: Scaling("mup", 1.0), "parameterization.name"),
        (lambda: Scaling("mean_field", float("nan")), "parameterization.gamma"),
    ],
)
def test_bad_input_names_the_field(make, field):
    with pytest.raises(BadInput) as caught:
        make()
    assert caught.value.field == field
