"""The fully connected network is its formula; its kernel on the circle is the exact one of infinite width."""

import math

import numpy as np
import pytest
import torch
from tolerances import SIGMAS

from featscale.errors import BadInput
from featscale.models.mlp import MLP
from featscale.parameterization import MEAN_FIELD, STANDARD, Centred, Layers, tensor_rates

# theory.md section 8: three hidden ReLU layers.
LAMBDAS = [0.657, 0.280, 0.0948, 0.0520, 0.0271]


def network(N=8, depth=2, seed=0, dtype=torch.float64, row=MEAN_FIELD, **kwargs):
    return MLP((3,), 2, N, depth, Layers(row, seed, dtype), **kwargs)


def test_mean_field_is_its_formula():
    g, N = network(N=8, depth=3), 8
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = x @ g.hidden[0].weight.T / math.sqrt(3)
    for layer in g.hidden[1:]:
        h = math.sqrt(2) * h.relu() @ layer.weight.T / math.sqrt(N)
    assert torch.allclose(g.features(x), math.sqrt(2) * h.relu(), rtol=1e-13, atol=0)
    assert torch.allclose(g(x), math.sqrt(2) * h.relu() @ g.readout.weight.T / N, rtol=1e-12, atol=1e-15)


def test_a_network_is_a_function_of_its_seed_in_every_dtype():
    x = torch.ones(1, 3)
    assert torch.equal(network(dtype=torch.float32)(x), network(dtype=torch.float32)(x))
    assert not torch.equal(network(dtype=torch.float32)(x), network(dtype=torch.float32, seed=1)(x))
    for single, double in zip(network(dtype=torch.float32).parameters(), network().parameters(), strict=True):
        assert torch.equal(single, double.float())


def test_rows_start_at_the_same_features_and_scale_the_readout():
    x = torch.ones(1, 3, dtype=torch.float64)
    mean_field, standard = network(N=64), network(N=64, row=STANDARD)
    assert torch.allclose(mean_field.features(x), standard.features(x), rtol=1e-12, atol=0)
    assert torch.allclose(8 * mean_field(x), standard(x), rtol=1e-12, atol=0)


def test_images_are_flattened_and_floating_point_operations_counted():
    g = MLP((1, 4, 4), 10, N=8, depth=3, layers=Layers(MEAN_FIELD, 0))
    assert g(torch.ones(2, 1, 4, 4)).shape == (2, 10)
    matrices = [p for p in g.parameters() if p.ndim == 2]
    assert g.flops == 2 * sum(p.numel() for p in matrices)


@pytest.mark.parametrize("change", [{"N": 0}, {"depth": 0}, {"N": 2.5}])
def test_bad_sizes_are_refused(change):
    with pytest.raises(BadInput, match=f"^model.{next(iter(change))}: "):
        network(**change)


def exact_eigenvalues(modes, n=4096, depth=3, variance=1.0):
    """Infinite-width neural tangent kernel of bias-free ReLU layers on the circle, by the arc-cosine recursion and an FFT."""
    cosine = np.cos(2 * np.pi * np.arange(n) / n)
    covariance, kernel = variance * cosine, variance * cosine
    for _ in range(depth):
        c = np.clip(covariance / variance, -1, 1)
        angle = np.arccos(c)
        covariance = variance * (np.sin(angle) + (np.pi - angle) * c) / np.pi
        kernel = covariance + (np.pi - angle) / np.pi * kernel
    return np.fft.rfft(kernel).real[modes] / n


def mode_speeds(N, seed, modes, n=128, **kwargs):
    """Rates at which gradient flow takes the modes cos kθ of a network at its start, in t = eta0 * step, over rotations.

    The rate of v_i = cos kθ_i is vᵀKv/(vᵀv n) with K the kernel Σ_tensors lr ∇f ∇fᵀ: one gradient of v·f each.
    """
    theta = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    x = torch.stack([theta.cos(), theta.sin()], 1)
    f = Centred(MLP((2,), 1, N, 3, Layers(MEAN_FIELD, seed, torch.float64), **{"input_power": 0.5} | kwargs), gamma=0.5)
    tensors, rates = zip(*tensor_rates(f, MEAN_FIELD, "sgd", eta0=1.0, N=N), strict=True)
    outputs = f(x)[:, 0]

    def rate(v):
        gradients = torch.autograd.grad(outputs @ v / n, tensors, retain_graph=True)
        return sum(rate.eta * float(G.square().sum()) for rate, G in zip(rates, gradients, strict=True))

    return [rate((k * theta).cos()) + rate((k * theta).sin()) for k in modes]


def test_the_oracle_has_the_published_spectrum():
    assert exact_eigenvalues([1, 2, 3, 4, 5]) == pytest.approx(LAMBDAS, rel=2e-3)
    assert exact_eigenvalues([10, 50], n=2**15) == pytest.approx([6.69e-3, 2.56e-4], rel=2e-3)


@pytest.mark.slow
def test_kernel_on_the_circle_is_the_infinite_width_one():
    modes = [1, 2, 3, 4, 5, 10]
    ratio = np.array([mode_speeds(1024, seed, modes) for seed in range(12)]) / exact_eigenvalues(modes, n=128)
    standard_error = ratio.std(0, ddof=1) / math.sqrt(len(ratio))
    assert np.all(standard_error < 0.03)
    # Beside the sampling error a network of width N is off by a multiple of 1/N.
    assert np.all(np.abs(ratio.mean(0) - 1) < SIGMAS * standard_error + 10 / 1024)


def test_kernel_on_the_circle_at_small_width():
    modes = [1, 2, 3]
    ratio = np.array([mode_speeds(256, seed, modes, n=32) for seed in range(16)]) / exact_eigenvalues(modes, n=32)
    standard_error = ratio.std(0, ddof=1) / 4
    assert np.all(np.abs(ratio.mean(0) - 1) < SIGMAS * standard_error + 10 / 256)


def test_kernel_with_a_first_layer_divided_by_root_two_is_another():
    """The negative twin: input_power 1, so that the rule divides by √D although |x| = 1."""
    modes = [1, 2, 3]
    speeds = np.array([mode_speeds(256, seed, modes, n=32, input_power=1.0) for seed in range(16)])
    ratio = speeds / exact_eigenvalues(modes, n=32)
    assert np.all(np.abs(ratio.mean(0) - 1) > SIGMAS * ratio.std(0, ddof=1) / 4 + 10 / 256)
    assert ratio.mean(0) == pytest.approx(
        exact_eigenvalues(modes, n=32, variance=0.5) / exact_eigenvalues(modes, n=32), rel=0.2
    )
