"""The steps of plain ReLU networks in one compiled loop, network by network.

A :class:`featscale.training.stack.Stack` calls an operation at a time for all its members, and all of its buffers pass through the cache each
time. Here everything that one member needs stays in a core's cache for as many steps as there are batches; what is left is the BLAS call of each
product, and some tenths of a microsecond beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from featscale.training.stack import Layer

Array = NDArray[Any]


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The function compiled at its first call, some seconds once a machine: kept beside the source or in the user's cache, where one can be written.

    Arithmetic is IEEE's, in the order written; the interpreter's lock is free meanwhile.
    """
    how = partial(njit, nogil=True, error_model="numpy")
    try:
        made: Callable[..., None] = how(cache=True)(function)
    except RuntimeError:
        made = how()(function)
    return made


class Fused:
    r"""E networks f = [g(θ0 + γϑ) − g(θ0)]/γ of dense layers and ReLU, without biases, by SGD on half the squared error.

    The steps are those of :class:`featscale.training.stack.Stack` with these choices, equal to rounding (tests/training/test_fused.py); a
    member's bits do not depend on the others.
    Arguments: layers, of weights only, the last the readout. gamma, shape (E, 1, 1), > 0. rates, of each layer, shape (E, 1, 1). B, batch
    size. All on the CPU.
    Cost: 8 B Σ_l fan_in fan_out floating-point operations a member and step, of which BLAS makes all but the activations.
    """

    def __init__(self, layers: Sequence[Layer], gamma: Tensor, rates: Sequence[Tensor], B: int) -> None:
        weights = [layer.weight for layer in layers]
        self.thetas = [weight.theta.flatten(1) for weight in weights]
        sizes = [weights[0].theta.shape[2], *(weight.theta.shape[1] for weight in weights)]
        self.start = _flat([weight.start for weight in weights])
        self.theta, self.moved = np.empty_like(self.start), np.empty_like(self.start)
        self.gamma = gamma.flatten().numpy()
        self.pull = _flat([weight.pull for weight in weights])
        self.rate = _flat([weight.scale * rate for weight, rate in zip(weights, rates, strict=True)])
        self.sizes = np.array(sizes)
        # Where each layer's weights and outputs lie.
        self.edges = np.cumsum([0, *(weight.theta[0].numel() for weight in weights)])
        self.places = np.cumsum([0, *(B * size for size in sizes[1:])])
        empty = lambda *shape: np.empty(shape, self.start.dtype)  # noqa: E731
        self.buffers = (
            empty(self.places[-1]),
            empty(B, sizes[-1]),
            empty(2, B * max(sizes)),
            empty(max(np.diff(self.edges))),
        )

    def steps(self, x: Tensor, y: Tensor) -> None:
        """One update of every member from each batch: x, shape (K, E, B, D), y, shape (K, E, B, outputs)."""
        torch.cat(self.thetas, 1, out=torch.from_numpy(self.theta))
        numbers = (self.start, self.theta, self.moved, self.pull, self.rate, self.gamma)
        _train(
            x.contiguous().numpy(), y.contiguous().numpy(), *numbers, self.sizes, self.edges, self.places, *self.buffers
        )
        for l, theta in enumerate(self.thetas):
            theta.copy_(torch.from_numpy(self.theta[:, self.edges[l] : self.edges[l + 1]]))


def _flat(parts: Sequence[Tensor]) -> Array:
    """What belongs to each member in one row, shape (E, …)."""
    array: Array = torch.cat([part.flatten(1) for part in parts], 1).numpy()
    return array


@compiled
def _train(
    x: Array,
    y: Array,
    start: Array,
    theta: Array,
    moved: Array,
    pull: Array,
    rate: Array,
    gamma: Array,
    sizes: Array,
    edges: Array,
    places: Array,
    h: Array,
    f: Array,
    spare: Array,
    gradient: Array,
) -> None:
    """All steps of a member, then those of the next.

    Arguments: x, y, shapes (K, E, B, D), (K, E, B, outputs). start, theta, moved, s θ0, ϑ and s (θ0 + γϑ), a row a member. pull, γs, rate,
    −Δϑ for a unit gradient by `moved`, shapes (E, layers). h, f, spare, gradient, buffers for the outputs of all layers, of the last, of the
    slopes by two of them, and of the gradient by one layer's weights.
    """
    for e in range(len(theta)):
        for l in range(len(sizes) - 1):
            for i in range(edges[l], edges[l + 1]):
                moved[e, i] = start[e, i] + pull[e, l] * theta[e, i]
        for k in range(len(x)):
            _forward(start[e], x[k, e], sizes, edges, places, h)
            f[:] = h[places[-2] :].reshape(f.shape)
            _forward(moved[e], x[k, e], sizes, edges, places, h)
            _slope(h[places[-2] :], f, y[k, e], gamma[e], spare[len(sizes) % 2])
            _backward(x[k, e], start[e], theta[e], moved[e], pull[e], rate[e], sizes, edges, places, h, spare, gradient)


@compiled
def _forward(weights: Array, x: Array, sizes: Array, edges: Array, places: Array, h: Array) -> None:
    """h ← the outputs of all layers, σ(h_l) of all but the last."""
    z = x
    for l in range(len(sizes) - 1):
        V = weights[edges[l] : edges[l + 1]].reshape(sizes[l + 1], sizes[l])
        part = h[places[l] : places[l + 1]]
        out = part.reshape(len(x), sizes[l + 1])
        np.dot(z, V.T, out)
        if l + 2 < len(sizes):
            half = h.dtype.type(0.5)
            for i in range(part.size):
                # max(h, 0) to the bit, but that no branch keeps it from vector instructions, and what is not a number stays so.
                part[i] = half * (part[i] + abs(part[i]))
        z = out


@compiled
def _slope(g: Array, f: Array, y: Array, gamma: Any, delta: Array) -> None:
    """delta ← (f − y)/B with f = (g − g(θ0))/γ, where `f` holds g(θ0)."""
    B = f.dtype.type(len(f))
    start, target = f.reshape(-1), y.reshape(-1)
    for i in range(len(g)):
        delta[i] = ((g[i] - start[i]) / gamma - target[i]) / B


@compiled
def _backward(
    x: Array,
    start: Array,
    theta: Array,
    moved: Array,
    pull: Array,
    rate: Array,
    sizes: Array,
    edges: Array,
    places: Array,
    h: Array,
    spare: Array,
    gradient: Array,
) -> None:
    """From the last layer to the first, whose slope by the outputs of layer l lies in spare[l % 2]: its weights move as soon as their gradient is there."""
    B, zero = len(x), h.dtype.type(0)
    for l in range(len(sizes) - 2, -1, -1):
        delta = spare[l % 2, : B * sizes[l + 1]].reshape(B, sizes[l + 1])
        z = x if l == 0 else h[places[l - 1] : places[l]].reshape(B, sizes[l])
        np.dot(delta.T, z, gradient[: edges[l + 1] - edges[l]].reshape(sizes[l + 1], sizes[l]))
        if l > 0:
            below = spare[(l - 1) % 2, : B * sizes[l]]
            np.dot(delta, moved[edges[l] : edges[l + 1]].reshape(sizes[l + 1], sizes[l]), below.reshape(B, sizes[l]))
            on = z.reshape(-1)
            for i in range(below.size):
                below[i] = below[i] if on[i] > 0 else zero
        _move(
            start[edges[l] : edges[l + 1]],
            theta[edges[l] : edges[l + 1]],
            moved[edges[l] : edges[l + 1]],
            pull[l],
            rate[l],
            gradient,
        )


@compiled
def _move(start: Array, theta: Array, moved: Array, pull: Any, rate: Any, gradient: Array) -> None:
    """ϑ ← ϑ − rate · gradient, and what follows from it."""
    for i in range(theta.size):
        theta[i] -= rate * gradient[i]
        moved[i] = start[i] + pull * theta[i]
