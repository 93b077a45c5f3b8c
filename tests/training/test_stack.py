"""The stacked step beside autograd, and a member beside itself in other company."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from tolerances import IDENTITY
from torch import Tensor

from featscale.models.activations import Activation
from featscale.training.stack import Displaced, Layer, Stack

B, D, N, OUTPUTS, ETA = 6, 3, 5, 2, 0.03
ACTIVATIONS = [("relu", 1.0), ("relu", 2.0), ("relu", 0.75), ("tanh", 1.0), ("erf", 1.0), ("gelu", 1.0)]


class Members:
    """E random networks of three hidden layers with all tensors at hand, float64."""

    def __init__(self, E: int, activation: tuple[str, float], bias: bool = False, skip: bool = False) -> None:
        rng = torch.Generator().manual_seed(1)
        draw = lambda *shape: 0.4 * torch.randn(shape, generator=rng, dtype=torch.float64)  # noqa: E731
        self.phi, self.skip = Activation(*activation), skip
        self.gamma = 0.3 + 0.1 * torch.arange(E, dtype=torch.float64).view(E, 1, 1)
        self.x, self.y = draw(E, B, D), draw(E, B, OUTPUTS)
        sizes = [D, N, N, N, OUTPUTS]
        shapes = [(fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(sizes)]
        self.W0, self.W = ([draw(E, *shape) for shape in shapes] for _ in range(2))
        self.b0, self.b = ([draw(E, 1, shape[0]) for shape in shapes[:-1]] if bias else [] for _ in range(2))

    def stack(self, members: slice = slice(None)) -> Stack:
        """The stacked networks; their displacements are copies."""
        gamma, layers = self.gamma[members], []
        for l, (W0, W) in enumerate(zip(self.W0, self.W, strict=True)):
            weight = Displaced(W0[members], W[members].clone(), self.multiplier(l) * self.gain(l), gamma)
            bias = None
            if l < len(self.b):
                bias = Displaced(self.b0[l][members], self.b[l][members].clone(), 0.7, gamma)
            layers.append(Layer(weight, bias, self.skip and 0 < l < 3))
        return Stack(layers, self.phi, gamma, B, slope, move)

    def loss(self, W: list[Tensor], b: list[Tensor]) -> Tensor:
        """Half the mean squared error of every member, summed, written as the formula is."""
        f = (self.g(W, b, 1.0) - self.g(W, b, 0.0)) / self.gamma
        return 0.5 * (f - self.y).square().sum() / B

    def g(self, W: list[Tensor], b: list[Tensor], moved: float) -> Tensor:
        """g at θ0 + moved · γϑ."""
        z, h = self.x, self.x
        for l, (W0, theta) in enumerate(zip(self.W0, W, strict=True)):
            below, h = h, self.multiplier(l) * z @ (W0 + moved * self.gamma * theta).mT
            if l < len(b):
                h = h + 0.7 * (self.b0[l] + moved * self.gamma * b[l])
            if self.skip and 0 < l < 3:
                h = h + below
            z = self.phi(h)
        return h

    def multiplier(self, l: int) -> float:
        """Forward multiplier of layer l."""
        return 0.8

    def gain(self, l: int) -> float:
        """Of the activation before layer l."""
        return self.phi.gain if l else 1.0


def slope(f: Tensor, y: Tensor, out: Tensor) -> None:
    """Of half the mean squared error."""
    torch.sub(f, y, out=out).div_(B)


def move(tensor: Displaced, gradient: Tensor) -> partial[Tensor]:
    """Gradient descent."""
    return partial(tensor.theta.add_, gradient, alpha=-ETA * tensor.scale)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_is_that_of_autograd(activation: tuple[str, float], bias: bool, skip: bool) -> None:
    members = Members(3, activation, bias, skip)
    stack = members.stack()
    for _ in range(3):
        W, b = ([theta.clone().requires_grad_() for theta in group] for group in (members.W, members.b))
        members.loss(W, b).backward()
        members.W = [theta.detach() - ETA * theta.grad for theta in W]
        members.b = [theta.detach() - ETA * theta.grad for theta in b]
        stack.step(members.x, members.y)
    for l, layer in enumerate(stack.layers):
        expected = [members.W[l], *members.b[l : l + 1]]
        for tensor, theta in zip(layer.tensors, expected, strict=True):
            torch.testing.assert_close(tensor.theta, theta, rtol=IDENTITY, atol=IDENTITY)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_member_has_the_same_bits_in_any_company(activation: tuple[str, float]) -> None:
    members = Members(7, activation, bias=True, skip=True)
    whole = run(members, slice(None))
    for part in (slice(0, 1), slice(2, 4), slice(3, 7)):
        for theta, alone in zip(whole, run(members, part), strict=True):
            assert torch.isfinite(alone).all()
            assert torch.equal(theta[part], alone)


def run(members: Members, part: slice) -> list[Tensor]:
    """The displacements after five steps of some of the members, in float32."""
    single = Members(7, ("relu", 1.0), bias=True, skip=True)
    single.__dict__ |= {key: as_float32(value) for key, value in members.__dict__.items()}
    stack = single.stack(part)
    for _ in range(5):
        stack.step(single.x[part], single.y[part])
    return [tensor.theta for layer in stack.layers for tensor in layer.tensors]


def as_float32(value: object) -> object:
    """Tensors, and lists of them, in single precision."""
    if isinstance(value, list):
        return [as_float32(item) for item in value]
    return value.float() if isinstance(value, Tensor) else value


def test_f_is_exactly_zero_at_the_start() -> None:
    members = Members(2, ("relu", 1.0), bias=True, skip=True)
    members.W = [torch.zeros_like(theta) for theta in members.W]
    members.b = [torch.zeros_like(theta) for theta in members.b]
    stack = members.stack()
    stack.x.copy_(members.x)
    for operation in stack.operations:
        operation()
        if getattr(operation, "func", None) == stack.f.div_:
            break
    assert torch.equal(stack.f, torch.zeros_like(stack.f))
