"""The deterministic measure of finite width: against draws, its bias in 1/N, the plateau, limits, and hard inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import IDENTITY, SIGMAS

from featscale.errors import BadInput
from featscale.numerics.sample_covariance import bottleneck_kappa
from featscale.simulate.problem import draw
from featscale.spectra import PowerLaw, SpectralMeasure
from featscale.theory.finite_width import finite_width, finite_width_measure, power_law_modes
from featscale.theory.flow import gradient_flow, lazy_loss

DRAWS = 64
# α, β, γ: hard (β = 0.3 among them), easy, super-easy, and a slowly falling spectrum that is very rich.
CASES = [(1.5, 0.3, 1.0), (1.5, 0.5, 1.0), (1.5, 1.25, 1.0), (2.0, 2.5, 1.0), (1.2, 0.75, 10.0)]
T = np.concatenate([[0.0], np.geomspace(0.1, 1e5, 25)])


def drawn(task, N, gamma, t, draws):
    """Mean loss at times t over draws of the features, and its standard error."""
    loss = np.array([gradient_flow(draw(task, N, seed).measure(), gamma, t, rtol=1e-3).loss for seed in range(draws)])
    return loss.mean(axis=0), loss.std(axis=0, ddof=1) / np.sqrt(draws)


def within(measure, gamma, t, mean, error):
    """Whether the flow on a measure is within four standard errors of the mean of draws at all times."""
    loss = gradient_flow(measure, gamma, t).loss
    return bool(np.all(np.abs(loss - mean) < SIGMAS * error + 1e-5 * mean[0]))


def check(case, N, M, t=T, draws=DRAWS):
    alpha, beta, gamma = case
    task = PowerLaw(alpha, beta, M)
    mean, error = drawn(task, N, gamma, t, draws)
    assert within(finite_width_measure(task, N), gamma, t, mean, error)
    assert not within(task.measure(), gamma, t, mean, error), "infinite width"
    if beta < 1:
        assert not within(finite_width_measure(task, N), 0.0, t, mean, error), "lazy"


def test_the_mean_of_draws_at_width_32():
    check(CASES[0], 32, 500, t=np.geomspace(0.1, 100, 9), draws=32)


@pytest.mark.parametrize("case", CASES)
def test_lazy_draws_at_width_32(case):
    """All five tasks in the closed form of γ = 0; infinite width, and a width a third off, are rejected."""
    task = PowerLaw(*case[:2], 1000)
    loss = np.array([lazy_loss(draw(task, 32, seed).measure(), T) for seed in range(DRAWS)])
    mean, error = loss.mean(axis=0), loss.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    assert within(finite_width_measure(task, 32), 0.0, T, mean, error)
    assert not within(task.measure(), 0.0, T, mean, error)
    assert not within(finite_width_measure(task, 20), 0.0, T, mean, error)


@pytest.mark.slow
@pytest.mark.parametrize("N", [32, 128, 512])
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_64_draws(case, N):
    check(case, N, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_mean_of_draws_at_width_2048(case):
    """Twelve draws, for the time they take; bench_finite_size.py --full makes 64."""
    check(case, 2048, 4096, draws=12)


def batched_flow(x, rho, atom, gamma, t, steps=8):
    """Loss at flow time t of many measures at once, shape (S,), by Runge–Kutta of theory section 5; x and rho of shape (S, n)."""
    a, K, h = np.zeros_like(x), np.ones((len(x), 1)), t / steps

    def rate(a, K):
        c = (rho * a * (1 - a)).sum(axis=1, keepdims=True)
        return K * x * (1 - a) + gamma * c / K * a, 2 * gamma * c

    for _ in range(steps):
        a1, K1 = rate(a, K)
        a2, K2 = rate(a + h / 2 * a1, K + h / 2 * K1)
        a3, K3 = rate(a + h / 2 * a2, K + h / 2 * K2)
        a4, K4 = rate(a + h * a3, K + h * K3)
        a, K = a + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4), K + h / 6 * (K1 + 2 * K2 + 2 * K3 + K4)
    return atom + (rho * (1 - a) ** 2).sum(axis=1)


def many_draws(task, N, draws, rng):
    """x and rho, shape (draws, N), and the atoms, of many draws of the features at once."""
    root = np.sqrt(task.lambdas())
    A = rng.standard_normal((draws, N, task.M)) * (root / np.sqrt(N))
    x, V = np.linalg.eigh(A @ A.transpose(0, 2, 1))
    rho = np.einsum("sij,si->sj", V, A @ (root * task.w_star())) ** 2 / x
    return x, rho, task.measure().power - rho.sum(axis=1)


def exact_moments(task, N):
    """Exact means over draws of ∫ρ x^j, j = 1, 2, 3, from the moments of real Wishart matrices."""
    lambdas, power = task.lambdas(), task.measure().rho
    p = [power @ lambdas**j for j in range(4)]
    first, second = lambdas.sum(), lambdas @ lambdas
    third = (N * N + 3 * N + 4) * p[3] + 2 * (N + 1) * first * p[2] + ((N + 1) * second + first**2) * p[1]
    return np.array([p[1], ((N + 1) * p[2] + first * p[1]) / N, third / N**2])


def bias(task, N, gamma, t, draws, rng):
    """Relative distance of theory from the mean of draws at time t, and its standard error.

    The exactly known moments ∫ρ x^j are control variates: they carry nearly all the noise of an early loss.
    """
    x, rho, atom = many_draws(task, N, draws, rng)
    loss = batched_flow(x, rho, atom, gamma, t)
    moments = np.stack([(rho * x**j).sum(axis=1) for j in (1, 2, 3)], axis=1) - exact_moments(task, N)
    weights, *_ = np.linalg.lstsq(moments - moments.mean(axis=0), loss - loss.mean(), rcond=None)
    controlled = loss - moments @ weights
    theory = gradient_flow(finite_width_measure(task, N), gamma, [t]).loss[0]
    return 1 - theory / controlled.mean(), controlled.std(ddof=1) / np.sqrt(draws) / controlled.mean()


@pytest.mark.parametrize(("case", "t"), [((1.5, 0.5, 2.0), 0.5), ((2.0, 2.5, 1.0), 0.4), ((1.5, 0.3, 0.0), 0.8)])
def test_the_bias_is_first_order_in_one_over_N(case, t):
    rng, widths = np.random.default_rng(0), np.array([32, 64, 128])
    task = PowerLaw(*case[:2], 250)
    values, errors = np.array([bias(task, N, case[2], t, 12_800 // N, rng) for N in widths]).T
    assert np.all(values > SIGMAS * errors), "theory is below the draws, by a measured amount"
    slope = np.polyfit(np.log(widths), np.log(values), 1)[0]
    slope_error = (errors / values)[[0, -1]] @ np.ones(2) / np.log(4)
    assert slope_error < 0.05
    assert slope == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize(("beta", "exponent"), [(0.5, 0.75), (1.25, 1.5), (2.5, 1.5)])
def test_the_plateau_falls_as_N_to_minus_alpha_min_one_beta(beta, exponent):
    """Not α min(2, β), which is what an average over networks, or a finite data set, would leave: see the draws below."""
    task, widths, atoms = PowerLaw(1.5, beta, 10**12), (30_000, 33_000), []
    for N in widths:
        modes = power_law_modes(task, N)
        kappa0 = bottleneck_kappa(modes, N)
        atoms.append(modes.rho @ (kappa0 / (modes.lam + kappa0)))
    slope = -np.log(atoms[1] / atoms[0]) / np.log(widths[1] / widths[0])
    assert slope == pytest.approx(exponent, abs=0.03)
    if beta > 1:
        assert abs(slope - 1.5 * min(2, beta)) > 0.3


@pytest.mark.parametrize("beta", [1.25, 2.5])
def test_the_plateau_of_draws_has_the_same_exponent(beta):
    """Log of the mean atom of 16 draws against theory's at N = 32 and 256; α min(2, β) would be off by a factor 2 or more."""
    task, logs = PowerLaw(1.5, beta, 2000), []
    for N in (32, 256):
        atoms = np.array([draw(task, N, seed).atom for seed in range(16)])
        theory = finite_width_measure(task, N).atom
        assert abs(atoms.mean() - theory) < SIGMAS * atoms.std(ddof=1) / 4 + theory * 2 / N
        logs.append(np.log(atoms.mean()))
    slope = (logs[0] - logs[1]) / np.log(8)
    assert abs(slope - 1.5 * min(2, beta)) > 0.25


def test_wide_networks_approach_infinite_width():
    task = PowerLaw(1.5, 0.5, 100)
    limit = gradient_flow(task.measure(), 1.0, T[T < 300]).loss
    gaps = [
        np.abs(gradient_flow(finite_width_measure(task, N), 1.0, T[T < 300]).loss / limit - 1).max()
        for N in (10**4, 10**5)
    ]
    assert gaps[1] < 0.15 * gaps[0] < 0.15 * 0.1


def test_bins_change_little_and_the_residual_says_how_much():
    task = PowerLaw(1.5, 0.5, 2000)
    fine, coarse, few = (finite_width(task, 64, bins) for bins in (None, 100, 4))
    assert fine.residual < 1e-6 < few.residual
    assert (fine.status, coarse.status) == ("ok", "ok")
    assert "bins" in few.status
    assert few.measure.x.size <= 4
    t = np.geomspace(0.1, 1e3, 9)
    exact = gradient_flow(fine.measure, 1.0, t).loss
    assert gradient_flow(coarse.measure, 1.0, t).loss == pytest.approx(exact, rel=1e-4)


def test_a_measure_of_single_modes_is_the_power_law_and_keeps_its_atom():
    task = PowerLaw(1.5, 0.5, 400)
    modes = task.measure()
    ours = finite_width(SpectralMeasure(modes.x[::-1], modes.rho[::-1], atom=0.25), 50)
    reference = finite_width(task, 50)
    assert ours.measure.rho.sum() == pytest.approx(reference.measure.rho.sum(), rel=1e-6)
    t = np.geomspace(0.1, 1e3, 9)
    assert lazy_loss(ours.measure, t) == pytest.approx(lazy_loss(reference.measure, t) + 0.25, rel=1e-6)
    assert ours.measure.atom == pytest.approx(reference.measure.atom + 0.25, rel=1e-6)


def test_equal_nodes_of_a_measure_are_many_modes():
    """100 modes at x = 1 and width 50: Marchenko–Pastur, half the power out of reach."""
    result = finite_width(SpectralMeasure(np.ones(100), np.full(100, 0.01)), 50)
    assert result.kappa0 == pytest.approx(1.0, rel=IDENTITY * 1e2)
    assert result.measure.atom == pytest.approx(0.5, rel=1e-9)
    assert (result.measure.rho @ result.measure.x) == pytest.approx(1.0, rel=1e-6)


def test_cells_of_modes_replace_the_sum_over_modes():
    task, N = PowerLaw(1.5, 0.5, 200_000), 100
    modes = power_law_modes(task, N)
    lambdas = task.lambdas()
    assert modes.lam.size < 3000
    assert modes.count.sum() == task.M
    for kappa in (1e-6, 1e-3, 1.0):
        exact = (lambdas / (lambdas + kappa)).sum()
        assert modes.count @ (modes.lam / (modes.lam + kappa)) == pytest.approx(exact, rel=1e-8)
        exact = (task.measure(None).rho.sum(), (lambdas * task.w_star() ** 2 / (lambdas + kappa)).sum())[1]
        assert (modes.rho / (modes.lam + kappa)).sum() == pytest.approx(exact, rel=1e-8)


HARD = (
    st.floats(1.0001, 4.0),
    st.floats(0.05, 6.0),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1, 2, 37, 3000, 10**9]),
    st.one_of(st.sampled_from(["all", "all but one"]), st.integers(1, 400)),
)


@settings(max_examples=8)
@given(*HARD)
def test_hard_inputs_give_a_loss_curve(alpha, beta, gamma, M, N):
    check_hard(alpha, beta, gamma, M, N)


@pytest.mark.slow
@settings(max_examples=150)
@given(*HARD)
def test_many_hard_inputs_give_a_loss_curve(alpha, beta, gamma, M, N):
    check_hard(alpha, beta, gamma, M, N)


def check_hard(alpha, beta, gamma, M, N):
    N = {"all": min(M, 400), "all but one": min(max(1, M - 1), 400)}.get(N, N)
    result = finite_width(PowerLaw(alpha, beta, M), N)
    assert result.status == "ok"
    assert result.residual < 1e-4
    assert (result.kappa0 == 0) == (N >= M)
    flow = gradient_flow(result.measure, gamma, [0.0, 1.0, 1e4, 1e12], rtol=1e-5)
    assert flow.status == "ok"
    assert np.all(np.isfinite(flow.loss))
    assert np.all(np.diff(flow.loss) <= 1e-4 * flow.loss[0])
    assert flow.loss[-1] >= result.measure.atom


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"N": 0}, "width"),
        ({"N": 2.5}, "width"),
        ({"N": 10**8}, "width"),
        ({"N": float("nan")}, "width"),
        ({"bins": 1}, "bins"),
        ({"task": PowerLaw(60.0, 1.0, 10**9)}, "modes"),
        ({"task": SpectralMeasure(np.array([1.0, 1e-120]), np.ones(2))}, "x"),
    ],
)
def test_bad_input(change, field):
    with pytest.raises(BadInput) as caught:
        finite_width(**({"task": PowerLaw(1.5, 0.5, 100), "N": 8} | change))
    assert caught.value.field == field
