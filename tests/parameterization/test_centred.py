"""The centred network: zero at its start, kept in checkpoints, exact enough."""

import math

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from featscale.errors import BadInput
from featscale.models.mlp import MLP
from featscale.parameterization import MEAN_FIELD, Centred, Layers

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(seed=0, dtype=torch.float64):
    return MLP((3,), 2, N=16, depth=2, layers=Layers(MEAN_FIELD, seed, dtype), bias=True)


def moved(f):
    """The network after some change of its parameters."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in f.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype))
    return f


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_at_the_start_and_not_after(dtype):
    f = Centred(network(dtype=dtype), gamma=0.1)
    x = X.to(dtype)
    assert torch.equal(f(x), torch.zeros(6, 2, dtype=dtype))
    assert f.g(x).all()
    assert moved(f)(x).all()


def test_it_is_the_difference_over_gamma_and_so_is_its_gradient():
    f = moved(Centred(network(), gamma=0.25))
    assert torch.allclose(f(X), (f.g(X) - network()(X)) / 0.25, atol=1e-14, rtol=0)
    of_f = torch.autograd.grad(f(X).sum(), list(f.parameters()))
    of_g = torch.autograd.grad(f.g(X).sum(), list(f.g.parameters()))
    for a, b in zip(of_f, of_g, strict=True):
        assert torch.allclose(a, b / 0.25, atol=1e-13, rtol=0)


def test_a_checkpoint_holds_the_start():
    f = moved(Centred(network(seed=0), gamma=0.5))
    other = Centred(network(seed=1), gamma=0.5)
    assert not torch.allclose(other(X), f(X))
    other.load_state_dict(f.state_dict())
    assert torch.equal(other(X), f(X))


def test_the_start_is_not_trained():
    f = Centred(network(), gamma=0.5)
    assert len(list(f.parameters())) == len(list(f.g.parameters())) == len(list(f.buffers()))
    assert not any(buffer.requires_grad for buffer in f.buffers())


def test_a_stack_of_networks_is_each_of_them():
    members = [moved(Centred(network(seed), gamma=0.5)) for seed in range(3)]
    state = stack_module_state(members)
    stacked = vmap(lambda state, x: functional_call(members[0], state, (x,)), in_dims=(0, None))(state, X)
    for f, outputs in zip(members, stacked, strict=True):
        assert torch.allclose(f(X), outputs, atol=1e-13, rtol=0)


def test_richness_zero_and_small_richness_in_float32_are_refused():
    with pytest.raises(BadInput, match=r"^parameterization.gamma: 0.0: .*linearised"):
        Centred(network(), gamma=0.0)
    for gamma in (-1.0, math.nan):
        with pytest.raises(BadInput, match=r"^parameterization.gamma: "):
            Centred(network(), gamma)
    with pytest.raises(BadInput, match=r"^parameterization.gamma: 0.001: .*float64"):
        Centred(network(dtype=torch.float32), gamma=1e-3)
    Centred(network(dtype=torch.float32), gamma=1e-2)
    Centred(network(dtype=torch.float64), gamma=1e-3)


def test_float32_loses_digits_as_gamma_falls_and_float64_does_not():
    @torch.no_grad()
    def error(gamma, dtype):
        f = Centred(network(dtype=dtype), 1.0)
        f.gamma = gamma
        exact = Centred(network(), 1.0)
        for model in (f, exact):
            rng = torch.Generator().manual_seed(5)
            for parameter in model.parameters():
                step = gamma * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
                parameter.data.add_(step.to(parameter.dtype))
        truth = exact(X) / gamma
        return float((f(X.to(dtype)).double() - truth).abs().max() / truth.abs().max())

    assert error(1e-5, torch.float32) > 1e-3 > error(1e-2, torch.float32)
    assert error(1e-5, torch.float64) == 0
