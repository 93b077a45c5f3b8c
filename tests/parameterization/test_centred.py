"""The centred network: zero at its start, kept in checkpoints, exact enough, and its linearised limit."""

import math

import numpy as np
import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from featscale.errors import BadInput
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.models.residual import ResidualCNN, ResidualMLP
from featscale.parameterization import MEAN_FIELD, Centred, Layers

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(seed=0, dtype=torch.float64, activation="relu"):
    return MLP((3,), 2, N=16, depth=2, layers=Layers(MEAN_FIELD, seed, dtype), bias=True, activation=activation)


def moved(f, size=1.0):
    """The network after some displacement of its parameters."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in f.displacement.values():
            step = size * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
            parameter.add_(step.to(parameter.dtype))
    return f


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_zero_at_the_start_and_not_after(dtype, gamma):
    f = Centred(network(dtype=dtype), gamma)
    x = X.to(dtype)
    assert torch.equal(f(x), torch.zeros(6, 2, dtype=dtype))
    assert f.g(x).all()
    assert moved(f)(x).all()


def test_it_is_the_difference_over_gamma_and_so_is_its_gradient():
    f = moved(Centred(network(), gamma=0.25))
    g = f.trained()
    for (name, theta), theta0 in zip(g.named_parameters(), f.g.parameters(), strict=True):
        assert torch.equal(theta, theta0 + 0.25 * f.displacement[name.replace(".", "/")])
    assert torch.allclose(f(X), (g(X) - network()(X)) / 0.25, atol=1e-14, rtol=0)
    g.requires_grad_(True)
    of_f = torch.autograd.grad(f(X).sum(), list(f.displacement.values()))
    of_g = torch.autograd.grad(g(X).sum(), list(g.parameters()))
    for a, b in zip(of_f, of_g, strict=True):
        assert torch.allclose(a, b, atol=1e-13, rtol=0)


def test_a_checkpoint_holds_start_and_displacement():
    f = moved(Centred(network(seed=0), gamma=0.5))
    other = Centred(network(seed=1), gamma=0.5)
    assert not torch.allclose(other(X), f(X))
    other.load_state_dict(f.state_dict())
    assert torch.equal(other(X), f(X))


def test_the_start_is_not_trained():
    f = Centred(network(), gamma=0.5)
    trained = [name for name, parameter in f.named_parameters() if parameter.requires_grad]
    assert trained == ["displacement." + name.replace(".", "/") for name, _ in f.g.named_parameters()]


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_stack_of_networks_is_each_of_them(gamma):
    members = [moved(Centred(network(seed), gamma)) for seed in range(3)]
    state = stack_module_state(members)
    stacked = vmap(lambda state, x: functional_call(members[0], state, (x,)), in_dims=(0, None))(state, X)
    for f, outputs in zip(members, stacked, strict=True):
        assert torch.allclose(f(X), outputs, atol=1e-13, rtol=0)


def test_bad_richness_is_refused():
    for gamma in (-1.0, math.nan, math.inf):
        with pytest.raises(BadInput, match=r"^parameterization.gamma: .*linearised"):
            Centred(network(), gamma)
    with pytest.raises(BadInput, match=r"^parameterization.gamma: 0.001: .*float64"):
        Centred(network(dtype=torch.float32), gamma=1e-3)
    Centred(network(dtype=torch.float32), gamma=1e-2)
    Centred(network(dtype=torch.float64), gamma=1e-3)


SHAPES = {
    "mlp": ((3,), MLP),
    "cnn": ((2, 4, 4), CNN),
    "residual_mlp": ((3,), ResidualMLP),
    "residual_cnn": ((2, 4, 4), ResidualCNN),
}


@pytest.mark.parametrize("name", SHAPES)
def test_gamma_zero_is_the_jacobian_times_the_displacement(name):
    """Entry by entry, with its gradient the Jacobian itself."""
    shape, architecture = SHAPES[name]
    f = moved(Centred(architecture(shape, 2, N=5, depth=2, layers=Layers(MEAN_FIELD, 0, torch.float64)), gamma=0.0))
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs, names = f(x), list(f.displacement)
    f.g.requires_grad_(True)
    g = f.g(x)
    for i, j in np.ndindex(*g.shape):
        jacobian = torch.autograd.grad(g[i, j], list(f.g.parameters()), retain_graph=True)
        slope = sum((J * f.displacement[n]).sum() for J, n in zip(jacobian, names, strict=True))
        assert outputs[i, j].item() == pytest.approx(slope.item(), rel=1e-11)
        gradient = torch.autograd.grad(outputs[i, j], [f.displacement[n] for n in names], retain_graph=True)
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-13) for a, b in zip(gradient, jacobian, strict=True))


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_small_gamma_comes_to_the_limit_at_order_gamma_and_gamma_one_does_not(activation):
    @torch.no_grad()
    def outputs(gamma):
        return moved(Centred(network(activation=activation), gamma), 0.1)(X)

    def distance(gamma):
        return float((outputs(gamma) - outputs(0.0)).norm() / outputs(0.0).norm())

    assert distance(1e-4) == pytest.approx(distance(1e-3) / 10, rel=0.02)
    assert distance(1e-3) < 1e-3
    assert distance(1.0) > 0.03


def test_float64_keeps_its_digits_where_float32_has_lost_them():
    """Accuracy of the difference: rounding over γ. The reference is the Jacobian-vector product, from which γ = 1e-9 is 1e-9 away."""

    @torch.no_grad()
    def error(gamma, dtype):
        f, exact = (moved(Centred(network(dtype=d, activation="tanh"), 1.0)) for d in (dtype, torch.float64))
        f.gamma = exact.gamma = gamma
        if gamma < 1e-6:
            exact.gamma = 0.0
        truth = exact(X)
        return float((f(X.to(dtype)).double() - truth).norm() / truth.norm())

    assert error(1e-2, torch.float32) < 1e-4
    assert error(1e-5, torch.float32) > 1e-3
    assert error(1e-9, torch.float64) < 1e-5
