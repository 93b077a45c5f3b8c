r"""The exponent table of the solvable model: time, width, data, batch noise and compute, lazy and rich.

Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858 (abstract) for the time and hard compute exponents; the rest is derived and says so beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from featscale.spectra import require_exponents

Regime = Literal["hard", "easy", "super-easy", "marginal hard/easy", "marginal easy/super-easy"]
MARGIN = 1e-9


@dataclass(frozen=True)
class ExponentTable:
    r"""All exponents of one task; every loss term is size^−exponent.

    chi_lazy, chi_rich: L ~ t^−χ of gradient flow. width_exponent: the bottleneck N^−α min(1, β), the power beyond κ₀ ~ N^−α (theory.md and summaries of the
    paper have min(2, β), which tests/theory/test_finite_width.py rejects for β > 1). data_exponent: the bottleneck P^−α min(2, β) of noiseless labels, lazy
    and rich alike. sgd_exponent: (η/B) t^−s, lazy. compute_exponent_*: L*(C) ~ C^−c at C = N t. width_allocation_*: N* ~ C^a, t* ~ C^(1−a).
    On a marginal task the two neighbours' values agree or log corrections appear; the regime's name says that it is marginal.
    """

    alpha: float
    beta: float
    regime: Regime
    chi_lazy: float
    chi_rich: float
    width_exponent: float
    data_exponent: float
    sgd_exponent: float
    compute_exponent_lazy: float
    compute_exponent_rich: float
    width_allocation_lazy: float
    width_allocation_rich: float


def regime(alpha: float, beta: float) -> Regime:
    r"""Hard β < 1, easy 1 < β < 2 − 1/α, super-easy β > 2 − 1/α; the two boundaries are named marginal.

    Arguments: alpha > 1, beta > 0. A task within 1e-9 of a boundary is marginal.

    >>> regime(1.5, 0.5), regime(1.5, 1.25), regime(1.5, 1.5), regime(1.5, 1.0)
    ('hard', 'easy', 'super-easy', 'marginal hard/easy')
    """
    require_exponents(alpha, beta)
    upper = 2 - 1 / alpha
    if abs(beta - 1) <= MARGIN:
        return "marginal hard/easy"
    if abs(beta - upper) <= MARGIN:
        return "marginal easy/super-easy"
    if beta < 1:
        return "hard"
    return "easy" if beta < upper else "super-easy"


def chi(beta: float, rich: bool) -> float:
    r"""Time exponent of gradient flow: β when lazy; rich β max(1, 2/(1+β)), which is 2β/(1+β) on a hard task.

    Source: arXiv:2409.17858; derived again in the flow of :mod:`featscale.theory.flow`, whose local slopes test it.
    """
    return beta * max(1.0, 2 / (1 + beta)) if rich else beta


def compute_optimal(alpha: float, beta: float, chi: float) -> tuple[float, float]:
    r"""Exponents (c, a) of L*(C) ~ C^−c and N*(C) ~ C^a at C = N t.

    Hard: t^−χ against N^−αβ. Easy: t^−β against the transient (1/N) t^−(1−1/α). Super-easy: the transients (1/N) t^−(1−1/α) and
    (η/B) t^−(2−1/α). Source: arXiv:2409.17858 for hard; easy and super-easy derived by balancing the two terms, tested by
    tests/theory/test_exponents.py against a numerical minimisation of the sum of terms.
    """
    if beta <= 1 + MARGIN:
        return alpha * beta * chi / (alpha * beta + chi), chi / (alpha * beta + chi)
    if beta <= 2 - 1 / alpha:
        return alpha * beta / (alpha * beta + 1), (alpha * beta - alpha + 1) / (alpha * beta + 1)
    return 1 - 1 / (2 * alpha), 0.5


def exponents(alpha: float, beta: float) -> ExponentTable:
    """The exponent table of the task (alpha, beta).

    Arguments: alpha > 1, capacity. beta > 0, source.
    Raises: BadInput otherwise.

    >>> table = exponents(alpha=1.5, beta=0.5)
    >>> table.regime, round(table.chi_rich, 4), round(table.compute_exponent_rich, 4)
    ('hard', 0.6667, 0.3529)
    """
    name = regime(alpha, beta)
    chi_lazy, chi_rich = chi(beta, rich=False), chi(beta, rich=True)
    (c_lazy, a_lazy), (c_rich, a_rich) = (compute_optimal(alpha, beta, value) for value in (chi_lazy, chi_rich))
    return ExponentTable(
        alpha=alpha,
        beta=beta,
        regime=name,
        chi_lazy=chi_lazy,
        chi_rich=chi_rich,
        width_exponent=alpha * min(1.0, beta),
        data_exponent=alpha * min(2.0, beta),
        sgd_exponent=2 - 1 / alpha,
        compute_exponent_lazy=c_lazy,
        compute_exponent_rich=c_rich,
        width_allocation_lazy=a_lazy,
        width_allocation_rich=a_rich,
    )
