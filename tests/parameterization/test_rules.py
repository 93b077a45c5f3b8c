"""The table's rows against the formulas they stand for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, parameterization
from featscale.parameterization.rules import ROLES, TABLE, require_richness

positive = st.floats(1e-3, 1e3)
widths = st.integers(1, 10**6)


@given(fan_in=positive, eta0=positive, gamma=positive, N=widths)
def test_mean_field_is_theory_section_8(fan_in, eta0, gamma, N):
    weights = [MEAN_FIELD[role] for role in ("input", "hidden", "readout")]
    assert [rule.multiplier(fan_in) for rule in weights] == pytest.approx([fan_in**-0.5, fan_in**-0.5, 1 / fan_in])
    assert [rule.std(fan_in) for rule in weights] == [1, 1, 1]
    assert [MEAN_FIELD[role].rate(eta0, gamma, N) for role in ROLES] == pytest.approx([eta0 * gamma**2 * N] * 4)


@given(eta0=positive, gamma=positive, N=widths)
def test_ntk_rates_are_mean_field_rates_at_richness_gamma_over_root_N(eta0, gamma, N):
    for role in ROLES:
        assert NTK[role].rate(eta0, gamma, N) == pytest.approx(MEAN_FIELD[role].rate(eta0, gamma / math.sqrt(N), N))


@given(fan_in=positive)
def test_standard_has_no_multiplier_and_the_scale_of_the_others(fan_in):
    for role in ("input", "hidden"):
        assert STANDARD[role].multiplier(fan_in) == 1
        assert STANDARD[role].std(fan_in) == pytest.approx(MEAN_FIELD[role].multiplier(fan_in))


def test_rows_are_found_by_name_and_roles_by_role():
    assert all(parameterization(name) is row and row.name == name for name, row in TABLE.items())
    with pytest.raises(BadInput, match=r"^parameterization.name: mup: one of mean_field, ntk, standard$"):
        parameterization("mup")
    with pytest.raises(BadInput, match=r"^role: embedding: one of input"):
        MEAN_FIELD["embedding"]


def test_richness_zero_is_refused_with_its_reason():
    require_richness(1e-9)
    with pytest.raises(BadInput, match="linearised"):
        require_richness(0.0)
    for gamma in (-1.0, math.nan, math.inf):
        with pytest.raises(BadInput, match="a number > 0"):
            require_richness(gamma)
