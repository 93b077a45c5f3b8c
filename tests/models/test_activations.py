"""Activations: unit second moment, the function that is meant, gradients that stay finite."""

import math

import pytest
import torch
from tolerances import IDENTITY, SIGMAS

from featscale.errors import BadInput
from featscale.models.activations import Activation

Z = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    "phi",
    [Activation(), Activation("relu", 2.0), Activation("relu", 0.7), *map(Activation, ("tanh", "erf", "gelu"))],
    ids=lambda phi: f"{phi.name}{phi.relu_power:g}",
)
def test_second_moment_is_one(phi):
    square = phi(Z).square()
    standard_error = square.std() / len(Z) ** 0.5
    assert abs(square.mean() - 1) < SIGMAS * standard_error
    assert abs((phi(Z) / phi.gain).square().mean() - 1) > SIGMAS * standard_error


def test_gains_in_closed_form():
    assert Activation().gain == pytest.approx(math.sqrt(2), abs=IDENTITY)
    assert Activation("relu", 2.0).gain == pytest.approx(math.sqrt(2 / 3), abs=IDENTITY)
    assert Activation("erf").gain == pytest.approx((2 / math.pi * math.asin(2 / 3)) ** -0.5, abs=IDENTITY)


@pytest.mark.parametrize("q", [0.7, 1.0, 1.5, 2.0])
def test_relu_power_and_its_gradient(q):
    h = torch.tensor([-1.0, 0.0, 0.25, 4.0], dtype=torch.float64, requires_grad=True)
    phi = Activation("relu", q)
    phi(h).sum().backward()
    assert phi(h).tolist() == pytest.approx([0, 0, phi.gain * 0.25**q, phi.gain * 4**q])
    assert h.grad.tolist() == pytest.approx([0, 0, *(phi.gain * q * x ** (q - 1) for x in (0.25, 4))])


def test_bad_activations_are_refused():
    for arguments, field in (
        (("swish",), "model.activation"),
        (("relu", 0.5), "model.relu_power"),
        (("relu", math.nan), "model.relu_power"),
        (("tanh", 2.0), "model.relu_power"),
    ):
        with pytest.raises(BadInput, match=f"^{field}: "):
            Activation(*arguments)
