r"""Dynamical mean-field theory of the solvable model in discrete time: width N, batch B, data P and learning rate η all finite.

The equations stand in :mod:`featscale.theory.dmft_iterated`, which solves them as written; :mod:`featscale.theory.dmft_marched` solves them in one pass
and is the default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featscale.errors import require
from featscale.spectra import PowerLaw
from featscale.theory.dmft_iterated import Setting, iterate
from featscale.theory.dmft_marched import march
from featscale.theory.modes import binned_modes

Array = NDArray[np.float64]
Method = Literal["marched", "iterated"]

MEMORY_MAX = 8e9
BINS = 60


@dataclass(frozen=True)
class Dmft:
    """Mean loss curve over draws of A(0), batches and data.

    step, 0 … T, number of updates made; shorter where the run is unstable. t = eta * step, flow time. loss, population loss L. train_loss, mean squared
    residual, label noise included, on the samples the next step draws from. K = 1 + gamma C_w, growth of the kernel. All of shape (n,). status, "ok" or
    advice. residual, relative error left in the equations. cost, multiplications.
    """

    step: NDArray[np.int64]
    t: Array
    loss: Array
    train_loss: Array
    K: Array
    status: str
    residual: float
    cost: float


def dmft(
    task: PowerLaw,
    N: float,
    B: float,
    eta: float,
    gamma: float,
    T: int,
    *,
    sigma: float = 0.0,
    P: float = math.inf,
    bins: int | None = BINS,
    method: Method = "marched",
) -> Dmft:
    """Loss after each of `T` steps.

    Arguments: N, width, an integer >= 1 or inf. B, samples a step, an integer >= 1 or inf. eta > 0, learning rate. gamma >= 0, richness. T >= 0, steps.
    sigma >= 0, label noise. P, size of the data set that batches are drawn from, without replacement within a step, B <= P (B = inf: all P), or inf:
    fresh samples. bins >= 4, most nodes that the modes are put into; None, every mode up to 10^4. method, "marched" or "iterated".
    Returns: :class:`Dmft`, with the rows up to where the loss runs away, if it does.
    Raises: BadInput that names the field; also where the two-time arrays would not fit in memory.
    Accuracy: O(1/N), O(1/P), rich also O(1/B), see dmft_iterated; 60 bins 1e-5.
    Cost: marched, (2/3 bins + 5) T³ multiplications in blocks and 12 T² + 64 bins T numbers; iterated, 12 T³ a bin for each of 20 to 40 iterations.
    """
    require(N == math.inf or (N >= 1 and int(N) == N), "width", N, "an integer >= 1, or inf")
    require(B == math.inf or (B >= 1 and int(B) == B), "batch", B, "an integer >= 1, or inf")
    require(0 < eta < math.inf, "eta", eta, "a number > 0")
    require(0 <= gamma < math.inf, "gamma", gamma, "a number >= 0")
    require(isinstance(T, (int, np.integer)) and T >= 0, "steps", T, "an integer >= 0")
    require(0 <= sigma < math.inf, "sigma", sigma, "a number >= 0")
    require(P == math.inf or (P >= 1 and int(P) == P), "data", P, "an integer >= 1, or inf")
    require(B == math.inf or B <= P, "batch", B, f"at most data = {P}, or inf")
    require(method in ("marched", "iterated"), "method", method, "marched or iterated")
    modes = binned_modes(task, bins)
    most = int(math.sqrt(MEMORY_MAX / (8 * 20)))
    require(
        T + 1 <= most and 8 * (T + 1) * 80 * modes.lam.size <= MEMORY_MAX,
        "steps",
        T,
        f"fewer than {most}, and fewer bins: for longer runs use featscale.theory.sgd",
    )
    setting = Setting(modes, N, min(B, P), eta, gamma, sigma, P)
    solution = (march if method == "marched" else iterate)(setting, T + 1)
    step = np.arange(solution.loss.size)
    K = 1 + gamma * solution.C_w
    return Dmft(
        step,
        np.asarray(eta * step, np.float64),
        solution.loss,
        solution.train_loss,
        K,
        solution.status,
        solution.residual,
        solution.cost,
    )
