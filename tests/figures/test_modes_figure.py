"""k*(t) from made-up octaves of a linear flow, whose answer is known; and what is refused."""

import math

import numpy as np
import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.figures.modes import k_star, octaves, save
from featscale.fits.curve import fit_curve


def flow(alpha=2.0, q=1.0, c=0.3, modes=512, seeds=2):
    """Octaves of the loss of df/dt = −λ(f − y) on the circle, λ_k = c k^-α."""
    k = np.arange(1, modes + 1, dtype=float)
    t = np.concatenate([[0.0], np.geomspace(0.1, 1e4, 101)])
    power = k ** (-2 * q) / 2 * np.exp(-2 * c * k**-alpha * t[:, None])
    octave = np.floor(np.log2(k)).astype(int)
    bands = {f"band_{1 << j}": power[:, octave == j].sum(1) for j in range(octave.max() + 1)}
    bands |= {"band_0": 0 * t, "band_4096": 0 * t}
    return pl.concat([pl.DataFrame({"t": t, "seed": seed, "loss": power.sum(1)} | bands) for seed in range(seeds)])


def test_octaves_without_target_are_left_out():
    assert octaves(flow(modes=100)) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("alpha", [2.0, 3.0])
def test_k_star_grows_as_the_modes_of_a_lazy_flow(alpha):
    found = k_star(flow(alpha))
    inside = found.filter((pl.col("t") > 30) & (pl.col("t") < 3000) & (pl.col("seed") == 0))
    expected = (2 * 0.3 * inside["t"].to_numpy() / math.log(2)) ** (1 / alpha)
    ratio = inside["k_star"].to_numpy() / expected
    assert 1 / math.sqrt(2) < ratio.min()
    assert ratio.max() < math.sqrt(2)
    slope = -fit_curve(inside["t"].to_numpy(), inside["k_star"].to_numpy(), window=(30, 3000)).exponent
    assert slope == pytest.approx(1 / alpha, abs=0.03)
    assert abs(slope - 1 / (5 - alpha)) > 0.1  # the other exponent's slope is told apart


def test_k_star_is_not_told_before_the_first_and_after_the_last_octave():
    found = k_star(flow(alpha=1.1, modes=16)).filter(pl.col("seed") == 1)["k_star"].to_numpy()
    assert np.isnan(found[0])
    assert np.isnan(found[-1])
    assert np.isfinite(found).sum() > 10


def test_what_is_refused():
    with pytest.raises(BadInput, match=r"^curve: no columns band_1"):
        k_star(flow().select("t", "seed", "loss"))
    with pytest.raises(BadInput, match=r"^curve: no row at t = 0"):
        k_star(flow().filter(pl.col("t") > 0))
    with pytest.raises(BadInput, match=r"^share: 1.0: "):
        k_star(flow(), share=1.0)


def test_the_figure_is_written(tmp_path):
    save(flow(), tmp_path / "new" / "modes.png", "circle")
    assert (tmp_path / "new" / "modes.png").stat().st_size > 10_000
