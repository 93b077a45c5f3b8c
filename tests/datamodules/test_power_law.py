"""Gaussian power-law features: law, purity in (seed, step), and what is refused."""

import numpy as np
import pytest
import torch

from datamodules.power_law import PowerLawFeatures
from featscale.errors import BadInput


def source(**changes):
    data = PowerLawFeatures(**({"alpha": 1.5, "beta": 0.5, "M": 6, "B": 4000} | changes))
    data.place("cpu", torch.float64)
    data.setup()
    return data


def test_features_have_the_spectrum_and_targets_are_linear():
    data = source()
    psi, y = data.batch(0, 0)
    variance = psi.var(0).numpy()
    assert np.all(np.abs(variance / data.task.lambdas() - 1) < 4 * np.sqrt(2 / 4000))
    assert torch.allclose(y[:, 0], psi @ data.w_star)


def test_label_noise_is_in_batches_and_not_in_the_test_set():
    data = source(sigma=0.5)
    psi, y = data.batch(0, 0)
    assert float((y[:, 0] - psi @ data.w_star).std()) == pytest.approx(0.5, rel=0.1)
    x, target, weights = data.test_set()
    assert torch.allclose(target[:, 0], x @ data.w_star)
    assert float(weights.sum()) == pytest.approx(1.0)


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = source().batch(3, 7)[0], source().batch(3, 7)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, source().batch(3, 8)[0])
    assert not torch.equal(first, source().batch(4, 7)[0])


def test_bad_input():
    with pytest.raises(BadInput, match="data.sigma"):
        source(sigma=-1.0)
    with pytest.raises(BadInput, match="data.B"):
        source(B=0)
    with pytest.raises(BadInput, match="data.B"):
        source(B=float("inf")).batch(0, 0)
