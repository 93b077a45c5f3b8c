r"""Gradient flow with the noise of small batches, lazy and rich, on a log grid of time: SGD to first order in the learning rate, any number of steps.

The matrix F = (√γ w, U) of theory's collapse, A = U A(0), is multiplied from the right by 1 + η√γ 𝔅(û) at each step, 𝔅(û) = [[0, ûᵀ], [û, 0]], û = A(0)Σ̂v/√N.
Had the factor been e^{η√γ 𝔅}, a boost, FᵀF would be known from one vector. It differs by −η²γ𝔅²/2, whose large part is the number |û|² in its corner:
noise drains w at the rate of its power, as a decay of w would. So FᵀF is a sum over the times s at which that happened, r(t, s) the boosted unit vector e_0,

.. math::
    F^\top F = \mathrm{diag}(-1, I) + \int dm(s)\, r(t, s)\, r(t, s)^\top, \qquad
    dm(s) = \delta(s)\, ds + \gamma \epsilon \sum_i x_i f_i(s)\, ds, \qquad \epsilon = \eta / B

f_i = n_i (L + σ²) + E_i is the noise on the n_i modes at x_i, E_i = E h_i² their part of the loss. With r = (r_0, √γ q), self-averaging over modes, and in
the slow clock dτ = K dt, Q = √x q̄/h(0) the mean and p, ν the covariances of q and of its s = 0 member with the noise,

.. math::
    K = \int dm\, r_0^2, \qquad \frac{dQ_i}{d\tau} = \frac{r_0}{K} x_i e_i, \qquad \frac{de_i}{d\tau} = -x_i e_i - \int dm\, \frac{dr_0}{d\tau} Q_i, \qquad
    \frac{dr_0}{d\tau} = \frac{\gamma}{K} \Big[ \sum_i \rho_i Q_i e_i - \sqrt K \sum_i x_i p_i \Big] \\
    \frac{d\nu_i}{d\tau} = x_i (\epsilon f_i - 2 \nu_i), \qquad \frac{dp_i}{d\tau} = x_i \Big( \frac{r_0}{\sqrt K} (\epsilon f_i - \nu_i) - p_i \Big), \qquad
    E_i = \rho_i e_i^2 + K x_i \nu_i, \qquad L = \mathrm{atom} + \sum_i E_i

and f_i is divided by 1 − ηKx_i/2 in the last line, which makes the stationary noise of discrete steps exact. Derived. Exact as η → 0 to first order in ε K Σx, what
its growth multiplies; neglected are O(η), O((εK Σx)²) and O(ε) of single modes. tests/theory/test_sgd.py measures the error against the discrete theory.

On a hard task (β < 1), rich, this gives: the excess loss of small batches is ε K L Σλ times a constant, ε t^{−(3β−1)/(1+β)}; it outlives L ~ t^{−2β/(1+β)}, and so
noise ends the rich phase where ε K Σλ nears 2: K stops growing first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featscale.numerics.sample_covariance import Modes

Array = NDArray[np.float64]

ROWS_PER_DECADE = 40
# The first step, in units of the fastest rate of the start.
FIRST = 1e-2
ITERATIONS = 60
TOLERANCE = 1e-11


@dataclass(frozen=True)
class NoisyFlow:
    """t, loss and K on the grid, each of shape (n,), as far as the run is stable; status; residual, largest power-weighted defect of e = 1 − ∫dm r_0 Q."""

    t: Array
    loss: Array
    K: Array
    status: str
    residual: float


@dataclass
class _State:
    """At one time: members r0 (J,), their weights m (J,), Q and p (J, modes), rates dr0 (J,); e, nu, drift = ∫dm dr_0 Q, kick = εf − ν (modes,)."""

    K: float
    power: float
    m: Array
    r0: Array
    dr0: Array
    Q: Array
    p: Array
    e: Array
    nu: Array
    drift: Array
    kick: Array
    spread: float = field(default=0.0)
