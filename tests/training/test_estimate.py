"""Estimates from a few steps: sums are sums, counts are exact, and time that must pass is seen."""

import tempfile
import time

import pytest
import tiny
import torch

from datamodules.power_law import PowerLawFeatures
from featscale.training.estimate import estimate, overhead
from featscale.training.march import OneByOne
from featscale.training.optimizer import SGD
from featscale.training.projected_linear import ProjectedLinear
from featscale.training.scaling import Scaling


class Slow(ProjectedLinear):
    """Five milliseconds a step, fifty a row."""

    def advance(self, start, stop):
        time.sleep(0.005 * (stop - start))
        super().advance(start, stop)

    def observe(self):
        time.sleep(0.05)
        return super().observe()


class SlowInTurn(Slow):
    """Trained together one after the other."""

    stackable = ("seed",)

    @classmethod
    def join(cls, members):
        return OneByOne(members)


def module_of(kind, T):
    data = PowerLawFeatures(alpha=1.5, beta=0.5, M=50, B=4)
    data.place("cpu", torch.float64)
    parts = {"data": data, "parameterization": Scaling("mean_field", 1.0), "optimizer": SGD(0.05)}
    return kind(N=8, dtype=torch.float64, T=T, seeds=(0,), **parts), data


@pytest.mark.parametrize("T", [1, 2, 3, 50])
def test_a_run_however_short_is_measured(T):
    """A run of one step has no step beside the first, which counts as set-up."""
    module, data = module_of(ProjectedLinear, T)
    one = estimate([module], data, "cpu")
    assert one.together == 1
    assert one.memory_bytes > 1e7
    assert one.seconds_per_row > 0
    assert (one.seconds_per_step > 0) == (T > 1)


def test_time_that_must_pass_is_seen():
    """A lower bound that no machine can beat; a model without it is far below."""
    slow, data = module_of(Slow, 10_000)
    slept = estimate([slow], data, "cpu", seconds=0.1)
    quick, data = module_of(ProjectedLinear, 10_000)
    assert slept.seconds_per_step >= 0.005
    assert slept.seconds_per_row >= 0.05
    assert estimate([quick], data, "cpu", seconds=0.1).seconds_per_step < slept.seconds_per_step


def test_members_of_a_group_are_measured_together():
    """Two that sleep, one after the other: twice the step and twice the row of one."""
    (first, data), (second, _) = module_of(SlowInTurn, 1000), module_of(SlowInTurn, 1000)
    both = estimate([first, second], data, "cpu", seconds=0.1)
    assert both.seconds_per_step >= 0.01
    assert both.seconds_per_row >= 0.1
    assert both.together == 2


class Sleeper(tiny.Tiny):
    """Takes a while to be built, and longer the first time."""

    built = 0

    def __init__(self, *parts, **options):
        super().__init__(*parts, **options)
        time.sleep(0.02 if Sleeper.built else 0.2)
        Sleeper.built += 1


def test_what_is_paid_once_is_not_paid_by_each_run(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(tiny, "Tiny", Sleeper)
    monkeypatch.setattr(Sleeper, "built", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    beside = overhead(tiny.planned(), tiny.build)
    assert 0.02 <= beside.seconds
    assert beside.once >= 0.15
    assert not list(tmp_path.rglob("record.json"))
