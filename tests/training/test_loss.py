"""Losses: values by their definitions, slopes against autograd and differences, and what cross-entropy refuses."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tolerances import IDENTITY

from featscale.errors import BadInput
from featscale.training.loss import MSE, CrossEntropy

LOSSES = (MSE(), CrossEntropy())


def outputs(*shape, seed=0):
    """Outputs and one-hot targets in float64."""
    rng = torch.Generator().manual_seed(seed)
    f = torch.randn(*shape, generator=rng, dtype=torch.float64)
    labels = torch.randint(shape[-1], shape[:-1], generator=rng)
    return f, F.one_hot(labels, shape[-1]).double(), labels


def test_values_are_those_of_torch():
    f, y, labels = outputs(7, 10)
    assert float(MSE().value(f, y)) == pytest.approx(float(0.5 * F.mse_loss(f, y, reduction="sum") / 7), rel=IDENTITY)
    assert float(MSE().per_sample(f, y).mean()) == pytest.approx(float(F.mse_loss(f, y)), rel=IDENTITY)
    assert float(CrossEntropy().value(f, y)) == pytest.approx(float(F.cross_entropy(f, labels)), rel=IDENTITY)
    assert float(CrossEntropy().per_sample(0 * f, y).mean()) == pytest.approx(torch.tensor(10.0).log().item())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_the_slope_is_the_gradient(loss):
    f, y, _ = outputs(3, 5, 4)
    f.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.value(f, y).sum(), f)
    assert torch.allclose(loss.slope(f, y), gradient, rtol=1e3 * IDENTITY, atol=IDENTITY)
    direction, step = torch.randn_like(f), 1e-5
    with torch.no_grad():
        difference = (loss.value(f + step * direction, y) - loss.value(f - step * direction, y)) / (2 * step)
        assert torch.allclose((loss.slope(f, y) * direction).sum((-2, -1)), difference, rtol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_networks_side_by_side_do_not_see_each_other(loss):
    f, y, _ = outputs(4, 6, 3)
    for made in (loss.value, loss.slope, loss.per_sample):
        assert torch.allclose(made(f, y), torch.stack([made(*pair) for pair in zip(f, y, strict=True)]), rtol=IDENTITY)


def test_cross_entropy_does_not_overflow():
    f = torch.tensor([[1e4, -1e4]])
    assert float(CrossEntropy().value(f, torch.tensor([[0.0, 1.0]]))) == pytest.approx(2e4)


def test_cross_entropy_refuses_other_targets():
    with pytest.raises(BadInput, match=r"^loss: cross_entropy: mse for targets that are not one-hot"):
        CrossEntropy().check(SimpleNamespace(one_hot=False))
    CrossEntropy().check(SimpleNamespace(one_hot=True))
    MSE().check(SimpleNamespace(one_hot=False))
