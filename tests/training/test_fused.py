"""The compiled loop beside the stack of operations, and a member beside itself in other company."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from test_stack import ETA, B, Members, as_float32, slope
from tolerances import IDENTITY
from torch import Tensor

from featscale.training import fused
from featscale.training.fused import Fused
from featscale.training.stack import Displaced, Layer, Stack

RELU = ("relu", 1.0)
STEPS = 4


def layers_of(members: Members, part: slice = slice(None)) -> list[Layer]:
    """The layers of some of the members, with displacements of their own."""
    gamma, pairs = members.gamma[part], zip(members.W0, members.W, strict=True)
    scales = [members.multiplier(l) * members.gain(l) for l in range(len(members.W))]
    weights = [Displaced(W0[part], W[part].clone(), scale, gamma) for scale, (W0, W) in zip(scales, pairs, strict=True)]
    return [Layer(weight) for weight in weights]


def batches(members: Members, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """STEPS different batches of each."""
    growing = 1 + 0.1 * torch.arange(STEPS, dtype=members.x.dtype).view(-1, 1, 1, 1)
    return growing * members.x[part], members.y[part] / growing


def fuse(members: Members, part: slice = slice(None), rate: float = ETA) -> list[Tensor]:
    """The displacements of some of the members after STEPS steps of the compiled loop."""
    layers, gamma = layers_of(members, part), members.gamma[part]
    Fused(layers, gamma, [torch.full_like(gamma, rate) for _ in layers], B).steps(*batches(members, part))
    return [layer.weight.theta for layer in layers]


def test_the_steps_are_those_of_the_stack() -> None:
    members = Members(3, RELU)
    layers = layers_of(members)
    before = [layer.weight.theta.clone() for layer in layers]
    move = lambda tensor, gradient: partial(tensor.theta.add_, gradient, alpha=-ETA * tensor.scale)  # noqa: E731
    stack = Stack(layers, members.phi, members.gamma, B, slope, move)
    for x, y in zip(*batches(members), strict=True):
        stack.step(x, y)
    for layer, start, theta in zip(layers, before, fuse(members), strict=True):
        torch.testing.assert_close(theta, layer.weight.theta, rtol=IDENTITY, atol=IDENTITY)
        assert not torch.allclose(theta, start)


def test_another_rate_is_another_path() -> None:
    members = Members(2, RELU)
    assert not torch.allclose(fuse(members)[0], fuse(members, rate=1.01 * ETA)[0], rtol=IDENTITY, atol=IDENTITY)


def test_a_member_has_the_same_bits_in_any_company() -> None:
    members = Members(7, RELU)
    members.__dict__ |= {key: as_float32(value) for key, value in members.__dict__.items()}
    whole = fuse(members)
    for part in (slice(0, 1), slice(2, 4), slice(3, 7)):
        for theta, alone in zip(whole, fuse(members, part), strict=True):
            assert torch.isfinite(alone).all()
            assert torch.equal(theta[part], alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_stays_so(bad: float) -> None:
    """A diverged member shows it; the others do not see it."""
    members = Members(3, RELU)
    fine = fuse(members)
    members.W[1][1] = bad
    for theta, expected in zip(fuse(members), fine, strict=True):
        assert not torch.isfinite(theta[1]).all()
        assert torch.equal(theta[[0, 2]], expected[[0, 2]])


def test_where_nothing_can_be_kept_it_is_compiled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fused.njit

    def no_place(cache: bool = False, **how: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**how)

    monkeypatch.setattr(fused, "njit", no_place)
    doubled = np.ones(3)
    fused.compiled(_double)(doubled)
    assert doubled.tolist() == [2, 2, 2]


def _double(array: np.ndarray) -> None:
    for i in range(array.size):
        array[i] *= 2
