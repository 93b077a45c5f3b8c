"""Gradient flow: reference values, an independent solver, limits, slopes, and hard inputs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import descent, flow_by_ode
from tolerances import SOLVER

from featscale.errors import BadInput
from featscale.simulate.problem import draw
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.exponents import chi
from featscale.theory.flow import gradient_flow, lazy_loss


def test_reference_values(reference_folder):
    """Values of theory section 5, computed elsewhere: every mode of 2,000 summed, integrated to 1e-10."""
    reference = json.loads((reference_folder / "flow.json").read_text())
    assert len(reference["cases"]) == 3
    for case in reference["cases"]:
        measure = PowerLaw(case["alpha"], case["beta"], reference["M"]).measure()
        flow = gradient_flow(measure, case["gamma"], reference["t"])
        assert flow.status == "ok"
        assert flow.loss == pytest.approx(case["L"], rel=1e-6)
        assert pytest.approx(case["K"], rel=1e-6) == flow.K


@pytest.mark.parametrize("gamma", [0.01, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("beta", [0.3, 1.5])
def test_equal_to_a_general_stiff_solver(beta, gamma):
    measure = PowerLaw(1.6, beta, 40).measure()
    t = np.geomspace(1e-2, 300, 9)
    flow = gradient_flow(measure, gamma, t, rtol=1e-9)
    loss, K = flow_by_ode(measure.x, measure.rho, gamma, t)
    assert pytest.approx(K, rel=SOLVER * 1e-9) == flow.K
    assert flow.loss == pytest.approx(loss, rel=1e-7, abs=1e-11)


def test_converges_with_the_tolerance():
    measure = PowerLaw(1.5, 0.5, 300).measure()
    t = np.geomspace(1, 1e3, 7)
    exact = gradient_flow(measure, 2.0, t, rtol=1e-12).loss
    errors = [np.abs(gradient_flow(measure, 2.0, t, rtol=rtol).loss / exact - 1).max() for rtol in (1e-4, 1e-7, 1e-10)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < SOLVER * 1e-10


@pytest.mark.parametrize(("beta", "slope"), [(0.25, 0.407), (0.5, 0.662), (0.75, 0.854), (1.25, 1.260), (1.5, 1.502)])
def test_local_slopes_at_ten_thousand(beta, slope):
    """Theory section 5 measured these at α = 1.5, γ = 1, M = 10⁹; the asymptotic χ is a little further."""
    measure = PowerLaw(1.5, beta, 10**9).measure(bins=2000)
    step = 1e-3
    loss = gradient_flow(measure, 1.0, 1e4 * np.exp([-step, step])).loss
    measured = -np.log(loss[1] / loss[0]) / (2 * step)
    assert measured == pytest.approx(slope, abs=6e-4)
    assert measured == pytest.approx(chi(beta, rich=True), abs=0.012)
    if beta < 1:
        assert abs(measured - chi(beta, rich=False)) > 0.09


def test_kernel_growth_follows_one_minus_chi():
    measure = PowerLaw(1.5, 0.5, 10**9).measure(bins=2000)
    K = gradient_flow(measure, 1.0, 1e4 * np.exp([-1e-3, 1e-3])).K
    assert np.log(K[1] / K[0]) / 2e-3 == pytest.approx(1 / 3, abs=0.01)


def test_gamma_zero_is_the_lazy_closed_form_and_small_gamma_approaches_it():
    measure = PowerLaw(1.5, 0.5, 500).measure()
    t = np.geomspace(0.1, 1e3, 9)
    lazy = lazy_loss(measure, t)
    assert np.array_equal(gradient_flow(measure, 0.0, t).loss, lazy)
    gaps = [np.abs(gradient_flow(measure, gamma, t).loss / lazy - 1).max() for gamma in (1e-4, 1e-6)]
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.05)


def test_equal_to_small_step_descent_at_finite_width():
    """First order in η, so that Richardson's extrapolation of two step sizes leaves O(η²)."""
    task, N, gamma, t = PowerLaw(1.5, 0.5, 200), 12, 2.0, 8.0
    rng = np.random.default_rng(0)
    A, lambdas, w_star = rng.standard_normal((N, 200)), task.lambdas(), task.w_star()
    G, b, c = A @ (lambdas[:, None] * A.T), A @ (lambdas * w_star), float(lambdas @ w_star**2)
    x, V = np.linalg.eigh(G / N)
    rho = (V.T @ b) ** 2 / N / x
    flow = gradient_flow(SpectralMeasure(x, rho, c - rho.sum()), gamma, [t])
    coarse, fine = (descent(G, b, c, N, eta, gamma, round(t / eta))[-1] for eta in (2e-3, 1e-3))
    assert abs(fine / flow.loss[0] - 1) < 1e-2
    assert 2 * fine - coarse == pytest.approx(flow.loss[0], rel=1e-5)


def test_a_draw_of_the_features_has_the_same_total_power():
    task = PowerLaw(1.5, 0.5, 5000)
    assert draw(task, 16, seed=3).measure().power == pytest.approx(task.measure().power, rel=1e-12)


@settings(max_examples=60)
@given(
    st.floats(1.01, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1e-9, 1.0, 1e3]),
    st.sampled_from([1, 2, 3000, 10**9]),
    st.lists(st.sampled_from([0.0, 1e-9, 0.1, 1.0, 1e4, 1e8, 1e12]), min_size=1, max_size=4),
)
def test_hard_inputs_give_a_monotone_curve_or_advice(alpha, beta, gamma, M, t):
    measure = PowerLaw(alpha, beta, M).measure(bins=400)
    flow = gradient_flow(measure, gamma, t, rtol=1e-6)
    assert flow.status == "ok"
    order = np.argsort(flow.t)
    assert np.all(np.isfinite(flow.loss))
    assert np.all(flow.loss >= 0)
    assert np.all(np.diff(flow.loss[order]) <= 1e-5 * measure.power)
    assert np.all(np.diff(flow.K[order]) >= -1e-5 * flow.K[order][:-1])
    assert np.all(flow.loss[flow.t == 0] == pytest.approx(measure.power))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": np.nan}, "gamma"),
        ({"t": [-1.0]}, "times"),
        ({"t": [np.inf]}, "times"),
        ({"rtol": 1.0}, "rtol"),
    ],
)
def test_bad_input(arguments, field):
    with pytest.raises(BadInput) as caught:
        gradient_flow(PowerLaw(1.5, 0.5, 10).measure(), **({"gamma": 1.0, "t": [1.0]} | arguments))
    assert caught.value.field == field
