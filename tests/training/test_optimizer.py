"""The update rules against torch's own, and what they keep."""

import pytest
import torch

from featscale.training.optimizer import SGD, Adam, Momentum


def path(optimizer, eta, steps=7, unit=1.0, scale=1.0):
    """Where a tensor is after some steps along fixed gradients."""
    theta = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    kept = tuple(torch.zeros_like(theta) for _ in optimizer.state)
    for step, G in enumerate(gradients(steps)):
        optimizer.update(theta, scale * G, eta, unit, kept, optimizer.numbers(step))
    return theta


def gradients(steps):
    return torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def torch_path(make, steps=7):
    theta = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3))
    optimizer = make([theta])
    for G in gradients(steps):
        theta.grad = G.clone()
        optimizer.step()
    return theta.detach()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.3)),
        (Momentum(0.1, mu=0.8), lambda p: torch.optim.SGD(p, lr=0.3 * 0.2, momentum=0.8)),
        (Adam(0.1, (0.8, 0.95), eps=1e-3), lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.8, 0.95), eps=1e-3)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_rule_is_torchs(ours, theirs):
    assert torch.allclose(path(ours, eta=0.3), torch_path(theirs), rtol=1e-12, atol=0)
    assert not torch.allclose(path(ours, eta=0.31), torch_path(theirs), rtol=1e-3, atol=0)


@pytest.mark.parametrize("optimizer", [SGD(0.1), Momentum(0.1), Adam(0.1)], ids=lambda each: each.name)
def test_a_rate_of_each_member_of_a_stack_is_its_own(optimizer):
    rates = torch.tensor([0.1, 0.4], dtype=torch.float64)
    stacked = path(optimizer, rates[:, None])
    for member, eta in enumerate(rates.tolist()):
        assert torch.allclose(stacked[member], path(optimizer, eta)[member], rtol=1e-13, atol=0)


def test_momentum_goes_as_far_as_sgd_along_a_constant_gradient():
    theta, m = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for _ in range(400):
        Momentum(0.1, mu=0.9).update(theta, torch.ones(1, dtype=torch.float64), 0.1, 1.0, (m,), ())
    assert float(theta) == pytest.approx(-0.1 * (400 - 9), rel=1e-10)


def test_the_unit_of_epsilon_makes_adam_blind_to_the_size_of_gradients():
    adam = Adam(0.1, eps=0.1)
    assert torch.allclose(path(adam, 0.3), path(adam, 0.3, unit=1e-6, scale=1e-6), rtol=1e-12, atol=0)
    assert not torch.allclose(path(adam, 0.3), path(adam, 0.3, scale=1e-6), rtol=0.1, atol=0)
