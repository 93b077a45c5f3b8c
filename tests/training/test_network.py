"""The network module: the steps it makes, its rows, and what it refuses."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer
from tolerances import IDENTITY

from datamodules.circle import Circle
from datamodules.power_law import PowerLawFeatures
from featscale.errors import BadInput
from featscale.models.mlp import MLP
from featscale.training.loss import CrossEntropy
from featscale.training.network import Network
from featscale.training.optimizer import SGD, Adam, Momentum
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
    for step in range(40):
        x, y = data.batch(0, step)
        G = torch.autograd.grad(0.5 * (raw.f(x) - y).square().mean(), list(raw.f.displacement.values()))
        with torch.no_grad():
            for theta, gradient in zip(raw.f.displacement.values(), G, strict=True):
                theta -= 0.5 * 16 * gradient
    for trained, expected in zip(module.f.displacement.values(), raw.f.displacement.values(), strict=True):
        torch.testing.assert_close(trained, expected, rtol=IDENTITY, atol=IDENTITY)
        assert trained.any()


@pytest.mark.parametrize("optimizer", [Momentum(0.5), Adam(0.05)])
def test_a_checkpoint_holds_the_optimiser(optimizer):
    """Ten steps, saved and loaded into another module, ten more: the same numbers as twenty."""
    data = Circle(q=1.0, k_max=20, B=32)
    whole, first, second = (network(data, optimizer=optimizer) for _ in range(3))
    data.setup()
    whole.advance(0, 20)
    first.advance(0, 10)
    second.load_state_dict(first.state_dict())
    second.advance(10, 20)
    for a, b in zip(whole.tensors, second.tensors, strict=True):
        assert torch.equal(a, b)
    forgetful = network(data, optimizer=optimizer)
    forgetful.f.load_state_dict(first.f.state_dict())
    forgetful.advance(10, 20)
    assert not all(torch.equal(a, b) for a, b in zip(whole.tensors, forgetful.tensors, strict=True))


def test_the_gradient_hook_stands_between_gradients_and_update():
    data = Circle(q=1.0, k_max=20, B=32)
    plain, doubled = network(data), network(data)
    data.setup()
    doubled.gradients_ready = lambda gradients: [G.mul_(2) for G in gradients]
    plain.advance(0, 1)
    doubled.advance(0, 1)
    for a, b in zip(plain.tensors, doubled.tensors, strict=True):
        assert torch.allclose(2 * a, b, rtol=1e-14, atol=0)
        assert a.any()


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
        (lambda: network(Circle(q=1.0, B=8), gamma=1e-3, dtype=torch.float32), "parameterization.gamma"),
        (lambda: network(Circle(q=1.0, B=8), N=0), "model.N"),
        (lambda: network(Circle(q=1.0, B=8), T=0), "steps"),
        (lambda: network(Circle(q=1.0, B=8), chunk=0), "trainer.chunk"),
        (lambda: SGD(-1.0), "optimizer.eta0"),
        (lambda: network(Circle(q=1.0, B=8), loss=CrossEntropy()), "loss"),
        (lambda: Momentum(0.5, mu=1.0), "optimizer.mu"),
        (lambda: Adam(float("nan")), "optimizer.eta0"),
        (lambda: Adam(0.1, adam_betas=(0.9, 1.0)), "optimizer.adam_betas"),
        (lambda: Adam(0.1, adam_betas=(0.9,)), "optimizer.adam_betas"),
        (lambda: Adam(0.1, eps=0.0), "optimizer.eps"),
        (lambda: Scaling("mup", 1.0), "parameterization.name"),
        (lambda: Scaling("mean_field", float("nan")), "parameterization.gamma"),
    ],
)
def test_bad_input_names_the_field(make, field):
    with pytest.raises(BadInput) as caught:
        make()
    assert caught.value.field == field
