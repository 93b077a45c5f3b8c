"""Estimates from a few steps: sums are sums, counts are exact, and time that must pass is seen."""

import time

import pytest
import torch

from datamodules.power_law import PowerLawFeatures
from featscale.training.estimate import Estimate, estimate
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


def module_of(kind, T):
    data = PowerLawFeatures(alpha=1.5, beta=0.5, M=50, B=4)
    data.place("cpu", torch.float64)
    parts = {"data": data, "parameterization": Scaling("mean_field", 1.0), "optimizer": SGD(0.05)}
    return kind(N=8, dtype=torch.float64, T=T, seeds=(0,), **parts), data


def test_a_run_is_its_setup_its_steps_and_its_rows():
    one = Estimate(2.0, 0.1, 0.5, rows=4, steps=100, flops_per_step=3.0, memory_bytes=1)
    assert one.seconds == pytest.approx(2.0 + 10.0 + 2.0)
    assert one.flops == 300.0


@pytest.mark.parametrize("T", [1, 2, 3, 50])
def test_counts_are_exact_however_short_the_run(T):
    module, data = module_of(ProjectedLinear, T)
    one = estimate(module, data, "cpu")
    assert (one.steps, one.rows) == (T, len(module.log_steps))
    assert one.flops == T * module.flops_per_step()
    assert one.memory_bytes > 1e7
    assert one.seconds > 0


def test_time_that_must_pass_is_seen():
    """A lower bound that no machine can beat; a model without it is far below."""
    slow = estimate(*module_of(Slow, 10_000), "cpu", seconds=0.1)
    quick = estimate(*module_of(ProjectedLinear, 10_000), "cpu", seconds=0.1)
    assert slow.seconds_per_step >= 0.005
    assert slow.seconds_per_row >= 0.05
    assert slow.seconds >= 10_000 * 0.005
    assert quick.seconds_per_step < slow.seconds_per_step
