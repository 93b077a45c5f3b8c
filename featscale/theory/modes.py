r"""Kernel modes with both weights that a theory with noise needs: target power ρ and the number of modes, in few bins.

Signal is summed over modes with weight ρ_k = λ_k w*_k², noise (of the batch, of the initial features) with weight 1. A cell of modes becomes the two
nodes of its Gauss rule for the weight halfway between ρ_k and λ_k (in log λ), and both weights follow from that one rule: what is left to
integrate is λ^{±(β − 1 + 1/α)/2}, as smooth as can be for both.
"""

from __future__ import annotations

import numpy as np

from featscale.errors import require
from featscale.numerics.sample_covariance import Modes
from featscale.spectra import EXACT_MODES, PowerLaw

BINS_MIN = 4


def binned_modes(task: PowerLaw, bins: int | None = None) -> Modes:
    r"""Modes of a power law: eigenvalues, how many modes each stands for, and their power.

    Derived; tests/theory/test_modes.py compares Σ λ e^{−λt}, Σ λ² e^{−λt} and Σ ρ e^{−λt} with the sum over all modes.
    Arguments: bins >= 4, most nodes of the result; None: every mode up to 10^4 modes, beyond that cells of relative width 3e-3 in λ.
    Returns: Modes, lam largest first, shape (at most bins,); count need not be whole.
    Accuracy: relative error of a sum (cell width in ln λ)⁴/4320 times a fourth derivative in ln λ of order 1 + (|β − 1 + 1/α|/2)⁴.
    Cost: O(bins), any M.
    """
    require(bins is None or bins >= BINS_MIN, "bins", bins, f"an integer >= {BINS_MIN}, or none for every mode")
    alpha, beta, M = task.alpha, task.beta, task.M
    if M <= EXACT_MODES and bins is None:
        lam = task.lambdas()
        return Modes(lam, np.ones(M), lam * task.w_star() ** 2)
    middle = (beta + 1 - 1 / alpha) / 2
    rule = PowerLaw(alpha, middle, M).measure(bins)
    return Modes(rule.x, rule.rho * rule.x ** -(middle + 1 / alpha), rule.rho * rule.x ** (beta - middle))
