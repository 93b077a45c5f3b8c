"""Clusters of modes against the sum over all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featscale.numerics.mode_tree import Modes, ModeTree


def sums(modes, u, y):
    """What the support needs of the modes at one u: Σ count λ^j/|λ − p|², j = 1, 2, and Σ ρ λ^j/|λ − p|², j = 0, 1."""
    inverse = 1 / ((modes.lam - u) ** 2 + y)
    counts = [inverse @ (modes.count * modes.lam**j) for j in (1, 2)]
    return np.array(counts + [inverse @ (modes.rho * modes.lam**j) for j in (0, 1)])


@pytest.mark.parametrize(("alpha", "beta"), [(1.2, 0.3), (1.5, 1.0), (4.0, 6.0)])
def test_a_view_has_the_sums_of_all_modes_and_far_fewer_of_them(alpha, beta):
    k = np.arange(1.0, 20_001)
    modes = Modes(k**-alpha, np.ones(k.size), k ** -(alpha * beta + 1))
    tree = ModeTree(modes)
    for q in (1.5, 30.5, 700.5, 9_000.5):
        u = q**-alpha
        view = tree.around(u * 0.999, u * 1.001)
        assert view.lam.size < 2500
        assert np.all(np.diff(view.lam) <= 0)
        for y in (0.0, (1e-4 * u) ** 2, u**2):
            assert sums(view, u, y) == pytest.approx(sums(modes, u, y), rel=2e-6)
    # The negative twin: outside its stretch a view sees clusters where there are single modes.
    elsewhere = 9_000.5**-alpha
    assert np.abs(sums(tree.around(1.0, 1.0), elsewhere, 0.0) / sums(modes, elsewhere, 0.0) - 1).max() > 1e-2


def test_the_modes_of_the_stretch_are_there_one_by_one():
    k = np.arange(1.0, 5_001)
    modes = Modes(k**-2, np.full(k.size, 3.0), k**-3)
    view = ModeTree(modes).around(120.0**-2, 100.0**-2)
    inside = (view.lam >= 120.0**-2) & (view.lam <= 100.0**-2)
    assert view.lam[inside] == pytest.approx(np.arange(100.0, 121.0) ** -2, rel=1e-15)
    assert np.all(view.count[inside] == 3)


@settings(max_examples=40)
@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=60, unique=True), st.floats(1e-9, 1e3))
def test_any_modes_keep_their_trace_and_power(lam, u):
    lam = np.sort(lam)[::-1]
    rho = np.where(np.arange(lam.size) % 3 == 0, 0.0, lam)
    view = ModeTree(Modes(lam, np.ones(lam.size), rho)).around(u, u)
    assert view.count @ view.lam == pytest.approx(lam.sum(), rel=1e-12)
    assert view.rho.sum() == pytest.approx(rho.sum(), rel=1e-12)
