"""The neural tangent kernel of a network of dense layers at its start from its activations alone, and linearised training in function space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from featscale.errors import require
from featscale.parameterization import Centred, Parameterization, tensor_rates
from featscale.parameterization.layers import ScaledLinear


def dense_kernel(f: Centred, row: Parameterization, N: int, x: Tensor) -> Tensor:
    r"""The kernel of :func:`featscale.diagnostics.empirical_kernel.empirical_kernel` for a network of dense layers with one output.

    .. math::
        \Theta_{ij} = \sum_l (\delta_{l,i} \cdot \delta_{l,j}) \, (r_l m_l^2\, z_{l,i} \cdot z_{l,j} + r^b_l m^{b\,2}_l), \qquad
        \delta_{l,i} = \partial g(x_i) / \partial h_l

    for layers h_l = m_l W_l z_l + m^b_l b_l whose weights have the rate r_l and biases the rate r^b_l: the gradient by W_l is an outer product, so
    that no gradient is formed.

    Source: derived; tests/diagnostics/test_dense_kernel.py compares with the gradients themselves.
    Arguments: f, all of whose tensors are in dense layers; its displacement is not looked at. row and width N, for the rates. x, P inputs.
    Returns: shape (P, P), the dtype of f, inverse flow time.
    Raises: BadInput that names the field.
    Accuracy: rounding of the dtype. Cost: 4 P² N a layer instead of 2 P² N²; memory 2 P N a layer and a few P².
    """
    layers = {name: module for name, module in f.g.named_modules() if isinstance(module, ScaledLinear)}
    dense = {f"{name}.{tensor}" for name, module in layers.items() for tensor, _ in module.named_parameters()}
    names = [name for name, _ in f.g.named_parameters()]
    require(set(names) == dense, "model", type(f.g).__name__, "a network of dense layers alone")
    etas = [rate.eta for _, rate in tensor_rates(f, row, "sgd", 1.0, N)]
    rates = dict(zip(names, etas, strict=True))
    z, h, g = _pass(f.g, list(layers.values()), x)
    require(g.shape == (len(x), 1), "model.outputs", g.shape[1], "1")
    kernel = torch.zeros(len(x), len(x), dtype=g.dtype, device=g.device)
    for (name, layer), inputs, delta in zip(layers.items(), z, torch.autograd.grad(g.sum(), h), strict=True):
        products = rates[f"{name}.weight"] * layer.multiplier**2 * (inputs @ inputs.T)
        if layer.bias is not None:
            products += rates[f"{name}.bias"] * layer.bias_multiplier**2
        kernel += products.mul_(delta @ delta.T)
    return kernel


def _pass(g: nn.Module, layers: list[ScaledLinear], x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Inputs and outputs of each layer in one forward pass, outputs such that gradients reach them, and g."""
    z: dict[ScaledLinear, Tensor] = {}
    h: dict[ScaledLinear, Tensor] = {}

    def keep(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        z[layer] = inputs[0].detach()
        h[layer] = output if output.requires_grad else output.requires_grad_()
        return h[layer]

    with _hooks(layers, keep), torch.enable_grad():
        outputs = g(x)
    return [z[layer] for layer in layers], [h[layer] for layer in layers], outputs


@contextmanager
def _hooks(layers: list[ScaledLinear], keep: Callable[..., Tensor]) -> Iterator[None]:
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def linearised_steps(kernel: Tensor, f: Tensor, y: Tensor, index: Tensor, eta: float) -> None:
    r"""SGD of the linearised network on batches of the points of its kernel, for M targets at once, in place.

    .. math:: f_{t+1} = f_t - \frac{\eta}{B} \Theta_{:, X_t} (f_t - y)_{X_t}

    Exactly what the network at γ = 0 does: its outputs are linear in what it trains. One kernel serves any number of targets.

    Source: derived; tests/diagnostics/test_dense_kernel.py compares with :class:`featscale.training.network.Network` at γ = 0.
    Arguments: kernel Θ, symmetric, shape (P, P). f, outputs at the P points for each target, shape (P, M), changed; y, targets, the same shape. index, points
    of each step's batch, shape (steps, B). eta, learning rate eta0.
    Cost: 2 P B M operations a step.
    """
    for points in index:
        residual = f.index_select(0, points) - y.index_select(0, points)
        f.addmm_(kernel.index_select(0, points).T, residual, alpha=-eta / len(points))
