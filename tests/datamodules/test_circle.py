"""The circle task: its targets, its quadrature, its batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import IDENTITY, SIGMAS

from datamodules.circle import Circle
from datamodules.stream import Stream
from featscale.errors import BadInput


def task(dtype=torch.float64, **kwargs):
    data = Circle(**({"q": 1.0, "k_max": 50, "B": 64} | kwargs))
    data.place("cpu", dtype)
    data.setup()
    return data


def series(x, q, k_max):
    """y by the sum that defines it."""
    theta = np.arctan2(x[:, 1].numpy(), x[:, 0].numpy())
    k = np.arange(1, k_max + 1)
    return (k**-q * np.cos(k * theta[:, None])).sum(1)


@settings(max_examples=6, deadline=None)
@given(q=st.floats(0.51, 4.0), k_max=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_targets_are_the_series(q, k_max, seed):
    data = task(q=q, k_max=k_max)
    for x, y in (data.batch(seed, 3), data.test_set()[:2]):
        assert torch.allclose(x.norm(dim=1), torch.ones(len(x), dtype=x.dtype), rtol=0, atol=IDENTITY)
        assert y[:, 0].numpy() == pytest.approx(series(x, q, k_max), abs=100 * IDENTITY * k_max)


def test_float32_targets_are_rounded_not_summed_in_float32():
    single, double = (task(dtype, k_max=5000).batch(0, 0)[1] for dtype in (torch.float32, torch.float64))
    assert torch.equal(single, double.float())


def test_a_batch_is_a_function_of_seed_and_step():
    def angles(seed, step):
        return task().batch(seed, step)[0]

    assert torch.equal(angles(0, 5), angles(0, 5))
    assert not torch.equal(angles(0, 5), angles(0, 6))
    assert not torch.equal(angles(0, 5), angles(1, 5))
    data = task()
    data.batch(3, 1)
    assert torch.equal(data.batch(0, 5)[0], angles(0, 5))


def test_shapes_and_weights():
    data = task(dtype=torch.float32, test_size=101)
    x, y = data.batch(0, 0)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((64, 2), (64, 1), torch.float32, torch.float32)
    x, y, weights = data.test_set()
    assert (x.shape, y.shape, weights.shape) == ((101, 2), (101, 1), (101,))
    assert float(weights.sum()) == pytest.approx(1)
    assert data.input_power == pytest.approx(float(x.square().mean()))
    assert (data.input_shape, data.outputs, data.classes) == ((2,), 1, False)


def power(data):
    """The test loss of f = 0."""
    _, y, weights = data.test_set()
    return float(weights @ y[:, 0].square())


def test_quadrature_is_exact_above_twice_the_fastest_mode_and_not_below():
    exact = float((task().coefficients() ** 2).sum() / 2)
    assert [power(task(test_size=size)) for size in (101, 128, 1024)] == pytest.approx([exact] * 3, rel=IDENTITY)
    theta = 2 * np.pi * np.arange(100) / 100
    aliased = float(np.mean(series(torch.tensor(np.stack([np.cos(theta), np.sin(theta)], 1)), 1.0, 50) ** 2))
    assert abs(aliased - exact) > 1e-5 * exact
    with pytest.raises(BadInput, match=r"^data.test_size: 100: an integer > 100 = 2 k_max"):
        task(test_size=100)


def test_the_training_grid_has_the_moments_of_the_circle():
    data = task(k_max=2000)
    exact = float((data.coefficients() ** 2).sum() / 2)
    assert float(data.table[:, 2].square().mean()) == pytest.approx(exact, rel=IDENTITY)


def test_samples_are_uniform():
    x = torch.cat([task(B=4096).batch(seed, 0)[0] for seed in range(8)])
    theta = torch.atan2(x[:, 1], x[:, 0])
    for k in (1, 2, 7):
        for moment in ((k * theta).cos(), (k * theta).sin()):
            assert abs(moment.mean()) < SIGMAS * moment.std() / len(theta) ** 0.5


def test_an_infinite_batch_is_the_population():
    data = task(B=math.inf)
    x, y = data.batch(0, 0)
    assert torch.equal(x, data.batch(1, 7)[0])
    assert float(y.square().mean()) == pytest.approx(power(data), rel=IDENTITY)


def test_exponents():
    assert task(q=1.0).exponents() == pytest.approx((2.0, 0.5))
    assert task(q=1.5).exponents(q_phi=2.0) == pytest.approx((4.0, 0.5))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"q": 0.5}, "data.q"),
        ({"q": math.nan}, "data.q"),
        ({"k_max": 0}, "data.k_max"),
        ({"k_max": 10**7}, "data.k_max"),
        ({"B": 0}, "data.B"),
    ],
)
def test_bad_tasks_are_refused(change, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        task(**change)


@pytest.mark.parametrize("B", [64, 65, math.inf])
def test_stacked_batches_are_the_single_ones(B):
    data = task(B=B)
    seeds, start, stop = (4, 0, 9), 60, 70
    x, y = data.batches(seeds, start, stop)
    assert x.shape[:2] == y.shape[:2] == (10, 3)
    slow = Stream.batches(data, seeds, start, stop)
    assert torch.equal(x, slow[0])
    assert torch.equal(y, slow[1])


@pytest.mark.parametrize("size", [101, 128, 1024])
def test_octaves_hold_the_power_of_their_modes_and_sum_to_the_loss(size):
    data = task(test_size=size, modes=True)
    _, y, weights = data.test_set()
    bands = data.decompose(y)
    power = data.coefficients() ** 2 / 2
    for b in (1, 2, 4, 8, 16, 32):
        assert float(bands[f"band_{b}"]) == pytest.approx(power[b - 1 : 2 * b - 1].sum(), rel=1e3 * IDENTITY)
    # What is not in the target: a constant, a sine, and two networks at once.
    error = torch.stack([y + 0.3, y + 0.2 * data.test_set()[0][:, 1:]])
    bands = data.decompose(error)
    loss = (weights * error[..., 0].square()).sum(-1)
    assert torch.allclose(sum(bands.values()), loss, rtol=IDENTITY, atol=0)
    assert float(bands["band_0"][0]) == pytest.approx(0.09, rel=IDENTITY)
    assert float(bands["band_1"][1]) == pytest.approx(0.5 + 0.02, rel=IDENTITY)


def test_curves_hold_no_octaves_unless_asked():
    assert task().decompose(task().test_set()[1]) == {}
