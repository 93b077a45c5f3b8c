"""The neural tangent kernel of a network at its start: the whole matrix in chunks, its spectrum and the task's powers in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from featscale.errors import require
from featscale.parameterization import Centred, Parameterization, tensor_rates

Array = NDArray[np.float64]


def empirical_kernel(f: Centred, row: Parameterization, N: int, x: Tensor, chunk: int = 64) -> Tensor:
    r"""The kernel that SGD at eta0 = 1 descends on, at θ₀.

    .. math:: \Theta_{ia,jb} = \sum_T r_T\, \partial_{\vartheta_T} f_a(x_i) \cdot \partial_{\vartheta_T} f_b(x_j), \qquad \dot f = -\Theta (f - y)/P

    for the gradient of ½ mean_i Σ_a (f − y)², tensors T at the rates r_T of the row, t = eta0 · steps.

    Source: Jacot, Gabriel & Hongler 2018, arXiv:1806.07572; tests/diagnostics/test_empirical_kernel.py.
    Arguments: f, whose tensors are tagged; its displacement is not looked at. row and width N, for the rates. x, P inputs, shape (P, …).
    chunk >= 1, inputs whose gradients are held at a time.
    Returns: shape (P · outputs, P · outputs), rows sorted by input, then output; the dtype of f; inverse flow time.
    Raises: BadInput that names the field.
    Accuracy: rounding of the dtype. Cost: memory 2 · chunk · outputs · parameters; (P/chunk)/2 times the gradients of all inputs.
    """
    require(chunk >= 1, "chunk", chunk, "an integer >= 1")
    rates = [rate.eta for _, rate in tensor_rates(f, row, "sgd", 1.0, N)]
    theta0 = {name: parameter.detach() for name, parameter in f.g.named_parameters()}

    def gradients(inputs: Tensor) -> Tensor:
        """Scaled so that their products are the kernel, shape (inputs · outputs, parameters)."""
        by_name = vmap(jacrev(lambda theta, one: functional_call(f.g, theta, (one[None],))[0]), (None, 0))(
            theta0, inputs
        )
        parts = [J.flatten(2) * rate**0.5 for J, rate in zip(by_name.values(), rates, strict=True)]
        return torch.cat(parts, dim=2).flatten(0, 1)

    parts = x.split(chunk)
    rows: list[list[Tensor]] = [[] for _ in parts]
    for i, left in enumerate(parts):
        J = gradients(left)
        for j in range(i + 1):
            rows[i].append(J @ (J if i == j else gradients(parts[j])).T)
    for i in range(len(parts)):
        rows[i] += [rows[j][i].T for j in range(i + 1, len(parts))]
    return torch.cat([torch.cat(row_of, dim=1) for row_of in rows])


def kernel_spectrum(kernel: Tensor, y: Tensor) -> tuple[Array, Array]:
    r"""Rates x_i of a kernel on P inputs and the powers of the target in its eigenvectors.

    .. math:: \frac{\Theta}{P} u_i = x_i u_i, \qquad \rho_i = \frac{(u_i \cdot y)^2}{P \cdot \text{outputs}}

    What a :class:`featscale.spectra.SpectralMeasure` is made of; Σρ_i e^{−2 x_i t} is the linearised network's training loss.

    Arguments: kernel (P · outputs, P · outputs). y, targets (P, outputs).
    Returns: x, largest first, those below rounding as 0, and rho, both shape (P · outputs,), float64.
    Raises: BadInput if the shapes do not fit.
    """
    P = len(y)
    require(
        kernel.shape == (y.numel(), y.numel()), "kernel", tuple(kernel.shape), f"shape {(y.numel(),) * 2} for these y"
    )
    x, u = np.linalg.eigh(kernel.double().numpy(force=True) / P)
    rho: Any = (u.T @ y.double().numpy(force=True).reshape(-1)) ** 2 / y.numel()
    x = np.where(x > x[-1] * np.finfo(np.float32 if kernel.dtype == torch.float32 else np.float64).eps * P, x, 0.0)
    return x[::-1].copy(), rho[::-1].copy()
