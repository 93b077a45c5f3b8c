"""The steps of plain ReLU networks in one compiled loop, network by network.

A :class:`featscale.training.stack.Stack` calls an operation at a time for all its members, and all of its buffers pass through the cache each
time. Here everything that one member needs stays in a core's cache for as many steps as there are batches; what is left is the BLAS call of each
product, and some tenths of a microsecond beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from featscale.training.stack import Layer

Array = NDArray[Any]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, some seconds once a machine: kept beside the source or in the user's cache, where one can be written.

    Arithmetic is IEEE's, in the order written; the interpreter's lock is free meanwhile.
    """
    how = partial(njit, nogil=True, error_model="numpy")
    try:
        made: Callable[..., Any] = how(cache=True)(function)
    except RuntimeError:
        made = how()(function)
    return made


class Shape(NamedTuple):
    """sizes, D and the outputs of each layer. edges and places, where the weights and the outputs of each begin in a row of all, and the ends."""

    sizes: Array
    edges: Array
    places: Array


class Members(NamedTuple):
    """gamma, shape (E,). scale, s of each layer, shape (layers,). pull, γs, and rate, −Δϑ for a unit gradient by s(θ0 + γϑ), shapes (E, layers).

    start, theta, moved, s θ0, ϑ and s(θ0 + γϑ), a row a member.
    """

    gamma: Array
    scale: Array
    pull: Array
    rate: Array
    start: Array
    theta: Array
    moved: Array


class Buffers(NamedTuple):
    """h, the outputs of all layers, after the activation where there is one. tangent, their derivatives. f, centred outputs. spare, slopes by the
    outputs of two layers, shape (2, …). gradient, by the weights of one."""

    h: Array
    tangent: Array
    f: Array
    spare: Array
    gradient: Array


class Fused:
    r"""E networks f = [g(θ0 + γϑ) − g(θ0)]/γ of dense layers and ReLU, without biases, by SGD on half the squared error; at γ = 0 their linearisation.

    The steps are those of :class:`featscale.training.stack.Stack` with these choices, and at γ = 0, f = Σ ∂g/∂θ0 · ϑ, those of autograd, equal to
    rounding (tests/training/test_fused.py, test_ensemble.py); a member's bits do not depend on the others.

    .. math:: \dot h_l = V_l \dot z_{l-1} + s_l \vartheta_l z_{l-1}, \quad \dot z_l = \sigma'(h_l) \odot \dot h_l, \quad f = \dot h_L \qquad (\gamma = 0)

    Arguments: layers, of weights only, the last the readout. gamma, shape (E, 1, 1), >= 0. rates, of each layer, shape (E, 1, 1). B, batch
    size. All on the CPU.
    Cost: 8 B Σ_l fan_in fan_out floating-point operations a member and step, 10 at γ = 0, of which BLAS makes all but the activations.
    """

    def __init__(self, layers: Sequence[Layer], gamma: Tensor, rates: Sequence[Tensor], B: int) -> None:
        weights = [layer.weight for layer in layers]
        sizes = [weights[0].theta.shape[2], *(weight.theta.shape[1] for weight in weights)]
        edges = np.cumsum([0, *(weight.theta[0].numel() for weight in weights)])
        self.shape = Shape(np.array(sizes), edges, np.cumsum([0, *(B * size for size in sizes[1:])]))
        start = _rows([weight.start for weight in weights])
        self.members = Members(
            gamma=gamma.flatten().numpy(),
            scale=np.array([weight.scale for weight in weights], start.dtype),
            pull=_rows([weight.pull for weight in weights]),
            rate=_rows([weight.scale * rate for weight, rate in zip(weights, rates, strict=True)]),
            start=start,
            theta=np.empty_like(start),
            moved=np.empty_like(start),
        )
        empty = lambda *shape: np.empty(shape, start.dtype)  # noqa: E731
        outputs, widest = self.shape.places[-1], B * max(sizes)
        self.buffers = Buffers(
            empty(outputs), empty(outputs), empty(B * sizes[-1]), empty(2, widest), empty(max(np.diff(edges)))
        )
        self.thetas = [weight.theta.flatten(1) for weight in weights]

    def steps(self, x: Tensor, y: Tensor) -> None:
        """One update of every member from each batch: x, shape (K, E, B, D), y, shape (K, E, B, outputs)."""
        theta = torch.from_numpy(self.members.theta)
        torch.cat(self.thetas, 1, out=theta)
        _train(x.contiguous().numpy(), y.contiguous().numpy(), self.members, self.shape, self.buffers)
        for part, moved in zip(self.thetas, theta.split([part.shape[1] for part in self.thetas], 1), strict=True):
            part.copy_(moved)


def _rows(parts: Sequence[Tensor]) -> Array:
    """What belongs to each member in one row, shape (E, …)."""
    array: Array = torch.cat([part.flatten(1) for part in parts], 1).numpy()
    return array


@compiled
def _train(x: Array, y: Array, members: Members, shape: Shape, buffers: Buffers) -> None:
    """All steps of a member, then those of the next; x, y, shapes (K, E, B, D), (K, E, B, outputs)."""
    f, B = buffers.f, x.dtype.type(x.shape[2])
    for e in range(len(members.theta)):
        for l in range(len(shape.sizes) - 1):
            _displace(e, l, members, shape)
        for k in range(len(x)):
            if members.gamma[e] > 0:
                _centred(e, x[k, e], members, shape, buffers)
            else:
                _linearised(e, x[k, e], members, shape, buffers)
            target, delta = y[k, e].reshape(-1), buffers.spare[len(shape.sizes) % 2]
            for i in range(len(f)):
                delta[i] = (f[i] - target[i]) / B
            _backward(e, x[k, e], members, shape, buffers)


@compiled
def _displace(e: int, l: int, members: Members, shape: Shape) -> None:
    """s(θ0 + γϑ) of a layer."""
    for i in range(shape.edges[l], shape.edges[l + 1]):
        members.moved[e, i] = members.start[e, i] + members.pull[e, l] * members.theta[e, i]


@compiled
def _matrix(row: Array, l: int, shape: Shape) -> Any:
    """The weights of a layer in a row of all, shape (fan_out, fan_in)."""
    return row[shape.edges[l] : shape.edges[l + 1]].reshape(shape.sizes[l + 1], shape.sizes[l])


@compiled
def _output(row: Array, l: int, shape: Shape) -> Any:
    """The outputs of a layer in a row of all, shape (B, fan_out)."""
    return row[shape.places[l] : shape.places[l + 1]].reshape(-1, shape.sizes[l + 1])


@compiled
def _forward(weights: Array, x: Array, shape: Shape, h: Array) -> None:
    """h ← the outputs of all layers."""
    half, z = h.dtype.type(0.5), x
    for l in range(len(shape.sizes) - 1):
        out = _output(h, l, shape)
        np.dot(z, _matrix(weights, l, shape).T, out)
        if l + 2 < len(shape.sizes):
            each = out.reshape(-1)
            for i in range(each.size):
                # max(h, 0) to the bit, but that no branch keeps it from vector instructions, and what is not a number stays so.
                each[i] = half * (each[i] + abs(each[i]))
        z = out


@compiled
def _centred(e: int, x: Array, members: Members, shape: Shape, buffers: Buffers) -> None:
    """f ← [g(θ0 + γϑ) − g(θ0)]/γ, and h at θ0 + γϑ."""
    f, h, last = buffers.f, buffers.h, shape.places[-2]
    _forward(members.start[e], x, shape, h)
    f[:] = h[last:]
    _forward(members.moved[e], x, shape, h)
    for i in range(len(f)):
        f[i] = (h[last + i] - f[i]) / members.gamma[e]


@compiled
def _linearised(e: int, x: Array, members: Members, shape: Shape, buffers: Buffers) -> None:
    """f ← Σ ∂g/∂θ0 · ϑ, and h at θ0."""
    h, tangent = buffers.h, buffers.tangent
    zero, z, dz = h.dtype.type(0), x, x
    _forward(members.start[e], x, shape, h)
    for l in range(len(shape.sizes) - 1):
        out = _output(tangent, l, shape)
        np.dot(z, _matrix(members.theta[e], l, shape).T, out)
        each, below = out.reshape(-1), buffers.spare[0, : out.size]
        if l > 0:
            np.dot(dz, _matrix(members.start[e], l, shape).T, below.reshape(out.shape))
        else:
            below[:] = 0
        z = _output(h, l, shape)
        on, linear = z.reshape(-1), l + 2 == len(shape.sizes)
        for i in range(each.size):
            dh = members.scale[l] * each[i] + below[i]
            each[i] = dh if linear or on[i] > 0 else zero
        dz = out
    buffers.f[:] = tangent[shape.places[-2] :]


@compiled
def _backward(e: int, x: Array, members: Members, shape: Shape, buffers: Buffers) -> None:
    """From the last layer to the first, whose slope by the outputs of layer l lies in spare[l % 2]: its weights move as soon as their gradient is there."""
    B, zero, spare, moved = len(x), x.dtype.type(0), buffers.spare, members.moved[e]
    for l in range(len(shape.sizes) - 2, -1, -1):
        delta = spare[l % 2, : B * shape.sizes[l + 1]].reshape(B, -1)
        z = x if l == 0 else _output(buffers.h, l - 1, shape)
        gradient = buffers.gradient[: shape.edges[l + 1] - shape.edges[l]]
        np.dot(delta.T, z, gradient.reshape(shape.sizes[l + 1], shape.sizes[l]))
        if l > 0:
            below, on = spare[(l - 1) % 2, : z.size], z.reshape(-1)
            np.dot(delta, _matrix(moved, l, shape), below.reshape(z.shape))
            for i in range(below.size):
                below[i] = below[i] if on[i] > 0 else zero
        theta, rate = members.theta[e, shape.edges[l] : shape.edges[l + 1]], members.rate[e, l]
        for i in range(theta.size):
            theta[i] -= rate * gradient[i]
        _displace(e, l, members, shape)
