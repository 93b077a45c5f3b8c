"""The solvable model in groups: every replica keeps the bits that it has alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.power_law import PowerLawFeatures
from featscale.training.march import March
from featscale.training.optimizer import SGD
from featscale.training.projected_linear import CACHED, STACKED, ProjectedLinear
from featscale.training.scaling import Scaling


def module(
    seed: int, gamma: float, N: int = 24, B: float = math.inf, dtype: Any = torch.float64, seeds: int = 1
) -> Any:
    data = PowerLawFeatures(1.5, 0.5, 200, B)
    made = ProjectedLinear(
        N, data, Scaling("mean_field", gamma), SGD(0.3), dtype, T=150, seeds=tuple(range(seed, seed + seeds)), chunk=40
    )
    made.on_fit_start()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("B", [math.inf, 8])
@pytest.mark.parametrize("gammas", [(0.0, 0.0, 0.0), (0.3, 1.0, 40.0)], ids=["lazy", "rich"])
@pytest.mark.parametrize("N", [1, 24, 65])
def test_replicas_trained_together_keep_every_bit(gammas: tuple[float, ...], B: float, dtype: Any, N: int) -> None:
    members, alone = ([module(i, gamma, N, B, dtype, seeds=1 + i) for i, gamma in enumerate(gammas)] for _ in range(2))
    March(members, 40).to(150)
    for one in alone:
        March([one], 40).to(150)
    for a, b in zip(members, alone, strict=True):
        assert a.rows == b.rows
        assert repr(a.diverged) == repr(b.diverged)
        for name, value in b.state_dict().items():
            assert np.array_equal(a.state_dict()[name], value, equal_nan=True), name


def test_only_replicas_of_one_problem_have_one_shape() -> None:
    base = module(0, 1.0).shape()
    assert module(5, 0.3).shape() == base
    others = [module(0, 0.0), module(0, 1.0, N=25), module(0, 1.0, B=8), module(0, 1.0, dtype=torch.float32)]
    shapes = [base, *(other.shape() for other in others)]
    assert not any(a == b for a, b in itertools.combinations(shapes, 2))


@pytest.mark.parametrize(
    ("N", "gamma", "seeds", "expected"), [(64, 0.0, 1, STACKED), (64, 0.0, 8, 8), (128, 1.0, 1, 16), (1, 1.0, 1, 64)]
)
def test_as_many_together_as_fit_a_cache(N: int, gamma: float, seeds: int, expected: int) -> None:
    assert module(0, gamma, N, seeds=seeds).together() == expected
    assert CACHED // 1024**2 == 0


def test_wide_rich_replicas_are_better_alone() -> None:
    data = PowerLawFeatures(1.5, 0.5, 2000)
    wide = ProjectedLinear(1024, data, Scaling("mean_field", 1.0), SGD(0.3), torch.float64, T=1, seeds=(0,))
    assert wide.together() == 1


def test_a_class_of_its_own_steps_is_not_joined_by_the_steps_of_its_parent() -> None:
    class Slow(ProjectedLinear):
        def advance(self, start: int, stop: int) -> None:
            super().advance(start, stop)

    class Renamed(ProjectedLinear):
        pass

    assert Slow.stackable == ()
    assert Renamed.stackable == ProjectedLinear.stackable != ()
