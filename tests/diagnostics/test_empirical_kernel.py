"""The empirical kernel entry by entry, against the infinite-width one, and as the engine of the linearised network."""

import math

import numpy as np
import pytest
import torch

from featscale.diagnostics.empirical_kernel import empirical_kernel, kernel_spectrum
from featscale.errors import BadInput
from featscale.models.cnn import CNN
from featscale.models.mlp import MLP
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Centred, Layers, tensor_rates
from featscale.theory.neural_tangent import mlp_kernel


def circle(P):
    theta = 2 * math.pi * torch.arange(P, dtype=torch.float64) / P
    return torch.stack([theta.cos(), theta.sin()], 1), sum((k * theta).cos() / k for k in (1, 2, 3))[:, None]


def mlp(N, seed=0, outputs=1, row=MEAN_FIELD, gamma=1.0, depth=2):
    return Centred(MLP((2,), outputs, N, depth, Layers(row, seed, torch.float64), input_power=0.5), gamma)


@pytest.mark.parametrize("row", [MEAN_FIELD, NTK, STANDARD], ids=lambda row: row.name)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_kernel_is_its_definition_in_chunks_of_any_size(row, chunk):
    f, (x, _) = mlp(6, outputs=2, row=row), circle(7)
    tensors, rates = zip(*tensor_rates(f, row, "sgd", 1.0, 6), strict=True)
    outputs = f(x).flatten()
    J = [torch.autograd.grad(output, tensors, retain_graph=True) for output in outputs]
    expected = [[sum(r.eta * (a * b).sum() for r, a, b in zip(rates, A, B, strict=True)) for B in J] for A in J]
    kernel = empirical_kernel(f, row, 6, x, chunk)
    assert torch.allclose(kernel, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_it_does_not_depend_on_richness_and_serves_convolutions():
    x, _ = circle(5)
    assert torch.equal(*(empirical_kernel(mlp(8, gamma=gamma), MEAN_FIELD, 8, x) for gamma in (0.0, 2.0)))
    g = Centred(CNN((1, 4, 4), 3, 4, 2, Layers(MEAN_FIELD, 0, torch.float64)), 1.0)
    kernel = empirical_kernel(g, MEAN_FIELD, 4, torch.ones(2, 1, 4, 4, dtype=torch.float64))
    assert kernel.shape == (6, 6)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-12


def test_it_comes_to_the_infinite_width_kernel_as_width_grows():
    x, _ = circle(16)
    exact = mlp_kernel(x[:, 0].numpy().clip(-1, 1), depth=2)

    def distance(N):
        kernels = [empirical_kernel(mlp(N, seed), MEAN_FIELD, N, x)[0].numpy() for seed in range(4)]
        return np.mean([np.linalg.norm(kernel - exact) / np.linalg.norm(exact) for kernel in kernels])

    distances = [distance(N) for N in (32, 128, 512)]
    slope = np.polyfit(np.log([32, 128, 512]), np.log(distances), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.25)
    assert distances[-1] < 0.1


def test_its_spectrum_drives_the_linearised_network_and_not_the_rich_one():
    """Full-batch steps at rate eta: Σ ρ (1 − eta x)^{2 steps}, exactly at γ = 0."""
    x, y = circle(24)
    rates, powers = kernel_spectrum(empirical_kernel(mlp(16), MEAN_FIELD, 16, x), y)
    assert powers.sum() == pytest.approx(float(y.square().mean()), rel=1e-12)
    for gamma, same in ((0.0, True), (1.0, False)):
        f = mlp(16, gamma=gamma)
        tensors = list(f.displacement.values())
        for steps in range(1, 31):
            G = torch.autograd.grad(0.5 * (f(x) - y).square().mean(), tensors)
            with torch.no_grad():
                for theta, gradient in zip(tensors, G, strict=True):
                    theta -= 0.3 * 16 * gradient
            loss = float((f(x) - y).detach().square().mean())
            expected = float(powers @ (1 - 0.3 * rates) ** (2 * steps))
            assert (loss == pytest.approx(expected, rel=1e-9)) is same


def test_shapes_that_do_not_fit_are_refused():
    x, y = circle(5)
    kernel = empirical_kernel(mlp(4), MEAN_FIELD, 4, x)
    with pytest.raises(BadInput, match=r"^kernel: \(5, 5\): shape \(4, 4\)"):
        kernel_spectrum(kernel, y[:4])
    with pytest.raises(BadInput, match=r"^chunk: 0: "):
        empirical_kernel(mlp(4), MEAN_FIELD, 4, x, chunk=0)
