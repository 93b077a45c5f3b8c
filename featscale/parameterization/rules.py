r"""The table: for each role of a tensor its forward multiplier, initial standard deviation and SGD rate, as exponents.

A row is written for the centred network f = [g(x; θ) − g(x; θ₀)]/γ, trained by SGD on half the mean squared error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from featscale.errors import require

Role = Literal["input", "hidden", "readout", "bias"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class TensorRule:
    r"""How one tensor scales with its fan-in and with the width N of the network.

    .. math:: h = n^{-a} W x, \qquad W(0)_{ij} \sim N(0, \sigma^2 n^{-2b}), \qquad \eta = \eta_0 \gamma^2 N^c

    with n the fan-in.

    Source: the three exponents are those of Yang & Hu 2021, arXiv:2011.14522 (with fan_in for n in a and b); γ² is
    the square of the 1/γ by which f differs from g, so that the initial speed of f does not depend on γ (derived;
    tests/parameterization/test_coordinates.py).
    Arguments: a, b, c, exponents. sigma >= 0, initial standard deviation before fan-in.
    """

    a: float
    b: float
    c: float
    sigma: float = 1.0

    def multiplier(self, fan_in: float) -> float:
        """Forward multiplier fan_in^-a."""
        return fan_in**-self.a

    def std(self, fan_in: float) -> float:
        """Initial standard deviation sigma fan_in^-b."""
        return self.sigma * fan_in**-self.b

    def rate(self, eta0: float, gamma: float, N: int) -> float:
        """SGD learning rate eta0 gamma² N^c; flow time is t = eta0 * step."""
        return eta0 * gamma**2 * N**self.c


@dataclass(frozen=True)
class Parameterization:
    """A row of the table: one rule for each role.

    Roles: `input`, weights that the data enter. `hidden`, weights between two layers that grow with N. `readout`,
    weights from N features to the outputs. `bias`, biases of input and hidden layers (a readout has none: centring
    makes it useless).
    """

    name: str
    input: TensorRule
    hidden: TensorRule
    readout: TensorRule
    bias: TensorRule

    def __getitem__(self, role: Role) -> TensorRule:
        """The rule of one role."""
        require(role in ROLES, "role", role, "one of " + ", ".join(ROLES))
        rule: TensorRule = getattr(self, role)
        return rule


MEAN_FIELD = Parameterization(
    name="mean_field",
    input=TensorRule(a=1 / 2, b=0, c=1),
    hidden=TensorRule(a=1 / 2, b=0, c=1),
    readout=TensorRule(a=1, b=0, c=1),
    bias=TensorRule(a=0, b=0, c=1, sigma=0),
)
r"""g = a·φ(h_D)/N, h_{l+1} = W φ(h_l)/√fan_in, all weights N(0, 1), rate η₀γ²N: features move by Θ(γ) at every N.

Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised;
tests/parameterization/test_coordinates.py."""

NTK = Parameterization(
    name="ntk",
    input=TensorRule(a=1 / 2, b=0, c=0),
    hidden=TensorRule(a=1 / 2, b=0, c=0),
    readout=TensorRule(a=1 / 2, b=0, c=0),
    bias=TensorRule(a=0, b=0, c=0, sigma=0),
)
r"""g = a·φ(h_D)/√N, all weights N(0, 1), rate η₀γ²: the mean-field row at richness γ/√N, so features freeze as N grows.

Source: Jacot, Gabriel & Hongler 2018, arXiv:1806.07572; derived, tests/parameterization/test_coordinates.py."""

STANDARD = Parameterization(
    name="standard",
    input=TensorRule(a=0, b=1 / 2, c=0),
    hidden=TensorRule(a=0, b=1 / 2, c=0),
    readout=TensorRule(a=0, b=1 / 2, c=0),
    bias=TensorRule(a=0, b=0, c=0, sigma=0),
)
"""Weights N(0, 1/fan_in), no multipliers, one rate η₀γ²: what frameworks do; the speed in function space grows as N."""

TABLE = {row.name: row for row in (MEAN_FIELD, NTK, STANDARD)}


def parameterization(name: str) -> Parameterization:
    """The row of that name.

    Raises: BadInput if there is none.

    >>> parameterization("mean_field")["readout"].multiplier(fan_in=256)
    0.00390625
    """
    require(name in TABLE, "parameterization.name", name, "one of " + ", ".join(TABLE))
    return TABLE[name]


def require_richness(gamma: float) -> None:
    """Raise BadInput unless gamma is a richness that a centred network can be divided by."""
    require(
        gamma != 0,
        "parameterization.gamma",
        gamma,
        "a number > 0 for a network: its limit gamma -> 0 is the linearised network, a small gamma comes close to it",
    )
    require(0 < gamma < math.inf, "parameterization.gamma", gamma, "a number > 0")
