"""Many networks of one shape trained in one stacked step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featscale.models.activations import Activation

# Numbers that torch's vector loops take at a time divide this.
LANES = 64

Operation = Callable[[], Any]


class Displaced:
    """One tensor of E networks, θ = θ0 + γϑ, as it enters the forward pass: times a scale.

    Attributes, shape (E, …): theta, the displacement ϑ that is trained. moved, scale · (θ0 + γϑ). start, scale · θ0. The gradient by ϑ of a
    loss of f = [g(θ) − g(θ0)]/γ is `scale` times that of g by `moved`. pull, γ scale, shape (E, 1, 1).
    """

    def __init__(self, theta0: Tensor, theta: Tensor, scale: float, gamma: Tensor) -> None:
        self.theta, self.scale = theta, scale
        self.start = theta0 * scale
        self.moved = self.start.clone()
        self.pull = gamma * scale

    def refresh(self) -> Operation:
        """The operation that brings `moved` up to date."""
        return partial(torch.addcmul, self.start, self.theta, self.pull, out=self.moved)


@dataclass(frozen=True)
class Layer:
    """One layer of E networks, h = V z + c, or h = V z + c + (the h before) with `skip`; V has shape (E, fan_out, fan_in), c (E, 1, fan_out)."""

    weight: Displaced
    bias: Displaced | None = None
    skip: bool = False

    @property
    def tensors(self) -> tuple[Displaced, ...]:
        """What is trained."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


class Stack:
    r"""E multilayer perceptrons f = [g(θ0 + γϑ) − g(θ0)]/γ of one shape: a step is a fixed list of operations on fixed buffers.

    With z_0 = x, z_l = σ(h_l) and effective weights V_l = s_l (W0_l + γ W_l), whose scale s_l holds the gain of the activation before,

    .. math:: h_l = V_l z_{l-1} + c_l \, (+\, h_{l-1}), \quad \delta_{l-1} = \sigma'(h_{l-1}) \odot V_l^\top \delta_l \, (+\, \delta_l),
              \quad \frac{\partial \ell}{\partial W_l} = s_l\, \delta_l z_{l-1}^\top, \quad \delta_L = \frac{\partial \ell}{\partial f}

    No operation mixes members; a step of SGD allocates nothing of a layer's size, and what need not be kept shares buffers, for a step is as
    fast as its buffers are near.

    Derived; tests/training/test_stack.py compares with autograd and checks that a member's bits do not depend on its company.
    Arguments: layers, the last the readout. phi, activation. gamma, shape (E, 1, 1), > 0. B, batch size. slope, (f, y, out) → out, ∂ℓ/∂f of
    the loss ℓ of a batch. move, (tensor, gradient by `tensor.moved`) → the operation that moves `tensor.theta`.
    Cost: 8 B Σ_l fan_in fan_out floating-point operations a member and step, and some microseconds an operation, whatever E.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        phi: Activation,
        gamma: Tensor,
        B: int,
        slope: Callable[[Tensor, Tensor, Tensor], Any],
        move: Callable[[Displaced, Tensor], Operation],
    ) -> None:
        self.layers, self.phi, self.gamma, self.slope, self.move = layers, phi, gamma, slope, move
        E, widest = len(gamma), max(layer.weight.theta[0].numel() for layer in layers)
        outputs = layers[-1].weight.theta.shape[1]
        self.x = gamma.new_empty(E, B, layers[0].weight.theta.shape[2])
        self.y, self.f = gamma.new_empty(E, B, outputs), gamma.new_empty(E, B, outputs)
        sizes = [layer.weight.theta.shape[1] for layer in layers]
        self._spare = [gamma.new_zeros(_round_up(E * B * max(sizes))) for _ in range(3)]
        self._gradient = gamma.new_empty(E * widest)
        keep_h = any(layer.skip for layer in layers) or not phi.in_place
        self.h, self.z = ([_padded(gamma, E, B, size) for size in sizes] for _ in range(2))
        if not keep_h:
            self.z = self.h
        self.operations = [*self._refresh(), *self._at_start(), *self._forward(), *self._backward()]

    def step(self, x: Tensor, y: Tensor) -> None:
        """One update of every member from its batch: x, shape (E, B, D), y, shape (E, B, outputs)."""
        self.x.copy_(x)
        self.y.copy_(y)
        # A network that diverges overflows first; its curve tells.
        with np.errstate(over="ignore", invalid="ignore"):
            for operation in self.operations:
                operation()

    def _refresh(self) -> Iterator[Operation]:
        for layer in self.layers:
            for tensor in layer.tensors:
                yield tensor.refresh()

    def _at_start(self) -> Iterator[Operation]:
        """f ← g(θ0), in spare buffers."""
        z, h = self.x, self.x
        for l, layer in enumerate(self.layers):
            below, h = h, self._buffer(self._spare[l % 2], self.h[l])
            yield from self._layer(layer, z, below, h, start=True)
            if l + 1 < len(self.layers):
                keep = layer.skip or self.layers[l + 1].skip or not self.phi.in_place
                z = self._buffer(self._spare[2], self.h[l]) if keep else h
                yield partial(self.phi.sigma, _whole(h), _whole(z))
        yield partial(self.f.copy_, h)

    def _forward(self) -> Iterator[Operation]:
        """h and z of every layer at θ, and f."""
        for l, layer in enumerate(self.layers):
            z, below = (self.z[l - 1], self.h[l - 1]) if l else (self.x, self.x)
            yield from self._layer(layer, z, below, self.h[l])
            if l + 1 < len(self.layers):
                yield partial(self.phi.sigma, _whole(self.h[l]), _whole(self.z[l]))
        yield partial(torch.sub, self.h[-1], self.f, out=self.f)
        yield partial(self.f.div_, self.gamma)

    def _layer(self, layer: Layer, z: Tensor, below: Tensor, h: Tensor, start: bool = False) -> Iterator[Operation]:
        V, *c = (tensor.start if start else tensor.moved for tensor in layer.tensors)
        yield product(z, V.mT, h)
        for term in c:
            yield partial(h.add_, term)
        if layer.skip:
            yield partial(h.add_, below)

    def _backward(self) -> Iterator[Operation]:
        """δ of every layer from the last to the first; its tensors are moved as soon as their gradients are there."""
        spare = cycle(self._spare)
        delta = self._buffer(next(spare), self.h[-1])
        yield partial(self.slope, self.f, self.y, delta)
        for l in reversed(range(len(self.layers))):
            layer = self.layers[l]
            yield from self._move(layer, delta, self.z[l - 1] if l else self.x)
            if l:
                d, above, delta = (
                    self._buffer(next(spare), self.h[l - 1]),
                    delta,
                    self._buffer(next(spare), self.h[l - 1]),
                )
                yield product(above, layer.weight.moved, d)
                yield partial(self.phi.backward, *(_whole(array) for array in (d, self.h[l - 1], self.z[l - 1], delta)))
                if layer.skip:
                    yield partial(delta.add_, above)

    def _move(self, layer: Layer, delta: Tensor, z: Tensor) -> Iterator[Operation]:
        gradient = self._buffer(self._gradient, layer.weight.theta)
        yield product(delta.mT, z, gradient)
        yield self.move(layer.weight, gradient)
        if layer.bias is not None:
            gradient = self._buffer(self._gradient, layer.bias.theta)
            yield partial(torch.sum, delta, dim=1, keepdim=True, out=gradient)
            yield self.move(layer.bias, gradient)

    @staticmethod
    def _buffer(spare: Tensor, like: Tensor) -> Tensor:
        """The head of a spare buffer in the shape of `like`."""
        return spare[: like.numel()].view(like.shape)


def _padded(like: Tensor, *shape: int) -> Tensor:
    """An array of that shape whose memory goes on to a multiple of LANES numbers."""
    size = math.prod(shape)
    return like.new_zeros(_round_up(size))[:size].view(shape)


def _whole(array: Tensor) -> Tensor:
    """A padded array with its padding, flat: torch computes the last few numbers of an array by other instructions, to other bits."""
    return array.as_strided((_round_up(array.numel()),), (1,))


def _round_up(size: int) -> int:
    return -(-size // LANES) * LANES


def product(a: Tensor, b: Tensor, out: Tensor) -> Operation:
    """The operation out ← a b for stacks of matrices of shapes (E, m, k), (E, k, n), (E, m, n).

    On a CPU it is NumPy's, which makes one BLAS call a member, so that a member's bits do not depend on its company; elsewhere torch.bmm.
    """
    if out.device.type != "cpu":
        return partial(torch.bmm, a, b, out=out)
    return partial(np.matmul, a.numpy(), b.numpy(), out=out.numpy())
