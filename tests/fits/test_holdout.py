"""Model choice by extrapolation: each law wins on its own data, and the simple one where nothing speaks against it."""

import numpy as np
import pytest
from fits.synthetic import correlated, tidy

from featscale.errors import BadInput
from featscale.fits.holdout import Score, choose, extrapolate

T = np.logspace(0, 4, 97)


@pytest.mark.parametrize(
    ("loss", "chosen", "exponent"),
    [
        (T**-0.5, "one", 0.5),
        (0.02 + T**-0.5, "one above a floor", 0.5),
        (T**-0.4 + 3 * T**-1.0, "two", 0.4),
    ],
)
def test_each_law_wins_on_its_own_data(loss, chosen, exponent):
    noise = correlated(np.random.default_rng(3), T, (5,), sigma=0.002, decades=0.1)
    found = extrapolate(*tidy(T, loss * noise))
    assert found.chosen == chosen
    score = {score.name: score for score in found.scores}
    assert abs(score[chosen].exponent - exponent) < 0.03
    assert score[chosen].error < 0.02
    assert np.isclose(found.split, 1e3)


def test_the_wrong_law_extrapolates_badly():
    found = extrapolate(T, 0.02 + T**-0.5)
    score = {score.name: score.error for score in found.scores}
    assert score["one"] > 100 * score["one above a floor"]


def test_only_rows_before_the_split_are_fitted():
    loss = np.where(T < 100, T**-0.5, 7.0)
    found = extrapolate(T, loss, split=99.0)
    assert abs(found.scores[0].exponent - 0.5) < 1e-6
    assert all(score.error > 1 for score in found.scores)


def test_a_later_law_must_be_better_by_more_than_its_error():
    simple, equal = Score("a", 0.5, 1.0, np.array([1.0, 1.1, 0.9])), Score("b", 0.5, 0.99, np.array([0.9, 1.1, 0.97]))
    better = Score("c", 0.5, 0.5, np.array([0.5, 0.6, 0.4]))
    assert choose([simple, equal]).name == "a"
    assert choose([simple, equal, better]).name == "c"


def test_a_law_that_needs_more_rows_is_named_as_refused():
    t = np.geomspace(1, 100, 7)
    found = extrapolate(t, t**-0.5, split=30.0)
    assert "fewer than 6 rows" in found.refused["two"]
    assert {score.name for score in found.scores} == {"one", "one above a floor"}
    with pytest.raises(BadInput, match="^split: "):
        extrapolate(t, t**-0.5, split=1000.0)
    with pytest.raises(BadInput, match="^split: "):
        extrapolate([1.0], [1.0])
