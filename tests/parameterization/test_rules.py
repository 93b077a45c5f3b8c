"""The table's rows against the formulas they stand for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featscale.errors import BadInput
from featscale.parameterization import MEAN_FIELD, NTK, STANDARD, Tag, parameterization
from featscale.parameterization.rules import OPTIMIZERS, ROLES, TABLE

positive = st.floats(1e-3, 1e3)
widths = st.integers(1, 10**6)
WEIGHTS = ("input", "hidden", "readout")


@given(fan_in=positive, eta0=positive, N=widths)
def test_mean_field_is_theory_section_8(fan_in, eta0, N):
    tags = [Tag(role, fan_in) for role in WEIGHTS]
    assert [MEAN_FIELD.multiplier(tag) for tag in tags] == pytest.approx([fan_in**-0.5, fan_in**-0.5, 1 / fan_in])
    assert [MEAN_FIELD.std(tag) for tag in tags] == [1, 1, 1]
    for optimizer in ("sgd", "momentum"):
        assert [MEAN_FIELD.rate(Tag(role, fan_in), optimizer, eta0, N).eta for role in ROLES] == pytest.approx(
            [eta0 * N] * len(ROLES)
        )


@given(fan_in=positive, eta0=positive, N=widths, L=st.integers(1, 100))
def test_adam_moves_each_layer_alike(fan_in, eta0, N, L):
    """A coherent step of one size moves Σ_j m W_ij x_j by m · η · fan_in: by η0 in each layer, η0/L in each of L branches."""
    for role in WEIGHTS:
        tag = Tag(role, fan_in)
        assert MEAN_FIELD.multiplier(tag) * MEAN_FIELD.rate(tag, "adam", eta0, N).eta * fan_in == pytest.approx(eta0)
    branch = Tag("branch", fan_in, L)
    moved = MEAN_FIELD.multiplier(branch) * MEAN_FIELD.rate(branch, "adam", eta0, N).eta * fan_in
    assert moved == pytest.approx(eta0 / L)


@given(eta0=positive, N=widths, L=st.integers(1, 100), fan_in=positive)
def test_ntk_is_mean_field_at_richness_gamma_over_root_N(eta0, N, L, fan_in):
    """ϑ of the ntk row is ϑ of the mean-field row over √N, since its γϑ at γ is the other's at γ/√N; so are Adam's steps, and SGD's for
    gradients √N times as large."""
    for role in ROLES:
        tag = Tag(role, fan_in, L)
        for optimizer, factor in (("sgd", N), ("momentum", N), ("adam", math.sqrt(N))):
            ours, theirs = (row.rate(tag, optimizer, eta0, N) for row in (NTK, MEAN_FIELD))
            assert ours.eta == pytest.approx(theirs.eta / factor)
            assert ours.unit == pytest.approx(theirs.unit * math.sqrt(N))


@given(fan_in=positive, N=widths)
def test_standard_has_no_multiplier_one_rate_and_the_scale_of_the_others(fan_in, N):
    for role in ("input", "hidden"):
        assert STANDARD.multiplier(Tag(role, fan_in)) == 1
        assert STANDARD.std(Tag(role, fan_in)) == pytest.approx(MEAN_FIELD.multiplier(Tag(role, fan_in)))
    assert {STANDARD.rate(Tag(role, fan_in), name, 0.5, N).eta for role in ROLES for name in OPTIMIZERS} == {0.5}


def test_branches_share_one_over_root_depth_in_every_row():
    for row in TABLE.values():
        for role in ("branch", "bias"):
            assert row.multiplier(Tag(role, 64, 16)) == pytest.approx(row.multiplier(Tag(role, 64, 1)) / 4)


def test_rows_are_found_by_name_and_roles_by_role():
    assert all(parameterization(name) is row and row.name == name for name, row in TABLE.items())
    with pytest.raises(BadInput, match=r"^parameterization.name: mup: one of mean_field, ntk, standard$"):
        parameterization("mup")
    with pytest.raises(BadInput, match=r"^role: embedding: one of input"):
        MEAN_FIELD["embedding"]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Tag("embedding", 3), "role"),
        (lambda: Tag("input", 0), "fan_in"),
        (lambda: Tag("input", math.nan), "fan_in"),
        (lambda: Tag("branch", 3, 0), "branches"),
        (lambda: MEAN_FIELD.rate(Tag("input", 3), "lion", 1.0, 4), "optimizer"),
        (lambda: MEAN_FIELD.rate(Tag("input", 3), "sgd", 0.0, 4), "optimizer.eta0"),
        (lambda: MEAN_FIELD.rate(Tag("input", 3), "sgd", math.nan, 4), "optimizer.eta0"),
        (lambda: MEAN_FIELD.rate(Tag("input", 3), "sgd", 1.0, 0), "model.N"),
    ],
)
def test_bad_values_are_refused_by_name(make, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        make()
