"""The problem's bounds, and random numbers as functions of (seed, purpose, index)."""

import math

import numpy as np
import pytest
import torch

from featscale.errors import BadInput
from featscale.simulate.problem import Problem, draw, generator, initial_features, stability_bound
from featscale.spectra import PowerLaw

TASK = PowerLaw(1.5, 0.5, 400)


def moments_after(eta, B, steps=3000):
    """Trace of Λ c after the second-moment recursion of the lazy infinite-width model, relative to its start."""
    lambdas = TASK.lambdas()
    c = np.ones_like(lambdas)
    start = lambdas @ c
    for _ in range(steps):
        c = (1 - eta * lambdas) ** 2 * c + eta**2 / B * (lambdas**2 * c + lambdas * (lambdas @ c))
        if lambdas @ c > 1e12:
            break
    return (lambdas @ c) / start


@pytest.mark.parametrize("B", [1, 4, 32])
def test_the_stability_bound_is_where_the_second_moments_stop_decaying(B):
    bound = stability_bound(TASK, B)
    assert moments_after(0.98 * bound, B) < 1
    assert moments_after(1.05 * bound, B) > 1e3


def test_the_bound_of_the_population_gradient_is_two_over_the_top_eigenvalue():
    assert stability_bound(TASK, math.inf) == 2.0


def test_generators_depend_on_each_of_their_arguments():
    first = [
        generator(*key).initial_seed() for key in [(0, "batch", 0), (1, "batch", 0), (0, "noise", 0), (0, "batch", 1)]
    ]
    assert len(set(first)) == 4
    assert first[0] == generator(0, "batch", 0).initial_seed()


def test_features_are_standard_normal_and_blocks_differ():
    features = torch.cat([initial_features(7, 8, block, 6000) for block in (0, 1)], dim=1)
    assert features.shape == (8, 6000)
    assert abs(features.mean()) < 4 / math.sqrt(48_000)
    assert abs(features.var() - 1) < 4 * math.sqrt(2 / 48_000)
    assert not torch.equal(features[:, :100], features[:, 4096:4196])


def test_streaming_over_modes_equals_one_product():
    task, N = PowerLaw(1.5, 0.5, 9000), 6
    A = torch.cat([initial_features(2, N, block, task.M) for block in range(3)], dim=1).numpy()
    expected = np.linalg.eigvalsh(A @ (task.lambdas()[:, None] * A.T) / N)[::-1]
    assert draw(task, N, seed=2).x.numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"N": 0}, "width"),
        ({"N": 401}, "width"),
        ({"N": 2.5}, "width"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": math.nan}, "gamma"),
        ({"B": 0}, "batch"),
        ({"B": 2.5}, "batch"),
        ({"B": math.nan}, "batch"),
        ({"sigma": -1}, "sigma"),
        ({"eta": 0.0}, "eta"),
        ({"eta": 2.0}, "eta"),
        ({"eta": math.nan}, "eta"),
        ({"eta": 1.0, "B": 1}, "eta"),
    ],
)
def test_bad_problems_name_the_field(change, field):
    with pytest.raises(BadInput) as caught:
        Problem(**({"task": TASK, "N": 8, "eta": 0.1, "gamma": 1.0} | change))
    assert caught.value.field == field
