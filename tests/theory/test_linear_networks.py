"""Linear networks without the projection: reductions, flow, and no bottleneck."""

import math

import numpy as np
import pytest

from featscale.simulate.linear_networks import LinearProblem, simulate_linear
from featscale.spectra import PowerLaw
from featscale.theory.exponents import exponents
from featscale.theory.flow import gradient_flow
from featscale.theory.linear_networks import deep_flow


def test_depth_two_at_infinite_width_is_the_flow_of_the_projected_model():
    measure, t = PowerLaw(1.5, 0.5, 300).measure(), np.geomspace(0.1, 100, 7)
    ours, known = deep_flow(measure, 1.0, t, depth=2), gradient_flow(measure, 1.0, t)
    assert ours.loss == pytest.approx(known.loss, rel=1e-8)


@pytest.mark.parametrize("depth", [2, 3])
def test_simulation_at_infinite_width_follows_the_flow_to_first_order_in_the_step(depth):
    task = PowerLaw(1.5, 0.5, 40)
    gaps = []
    for eta in (0.02, 0.01):
        curves = simulate_linear(LinearProblem(task, math.inf, eta, 1.0, depth=depth), round(5 / eta), [0])
        flow = deep_flow(task.measure(), 1.0, curves.t, depth=depth)
        gaps.append(np.abs(curves.loss[:, 0] / flow.loss - 1).max())
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.2)
    assert gaps[1] < 0.05


def test_the_reduction_equals_the_definition():
    problem = LinearProblem(PowerLaw(1.5, 0.5, 30), 8, 0.1, 1.0)
    naive, fast = (simulate_linear(problem, 50, [0], method=method).loss for method in ("naive", "collapsed"))
    assert fast == pytest.approx(naive, rel=1e-10)


def test_there_is_no_width_bottleneck_without_the_projection():
    """At N = 4 the projected model stops above its plateau; all layers trained, the loss goes far below it."""
    task, N = PowerLaw(1.5, 0.5, 200), 4
    loss = simulate_linear(LinearProblem(task, N, 0.1, 1.0), 20_000, range(4)).loss[-1].mean()
    plateau = N ** -exponents(1.5, 0.5).width_exponent
    assert loss < 0.3 * plateau
