"""Logarithmic grids of steps and times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require


def log_steps(T: int, per_decade: int = 24) -> NDArray[np.int64]:
    """Steps 0, 1, … T at which a run of `T` steps is logged: all that are distinct on a log grid, and the last.

    Arguments: T >= 0, number of steps. per_decade >= 1, rows a decade.
    Returns: shape (n,), int64, increasing, from 0 to T.

    >>> log_steps(30, per_decade=4)
    array([ 0,  1,  2,  3,  6, 10, 18, 30])
    """
    require(T >= 0, "steps", T, "an integer >= 0")
    require(per_decade >= 1, "rows_per_decade", per_decade, "an integer >= 1")
    if T == 0:
        return np.zeros(1, np.int64)
    # The grid is fixed, 10^(i/per_decade), so that a longer run logs the same early steps.
    grid = np.round(10.0 ** (np.arange(int(np.log10(T) * per_decade) + 1) / per_decade)).astype(np.int64)
    return np.unique(np.concatenate([[0], grid[grid <= T], [T]]))
