r"""The table: for each role of a tensor its forward multiplier, initial scale and learning rate, SGD, momentum and Adam.

A row is written for the centred network f(x) = [g(x; θ₀ + γϑ) − g(x; θ₀)]/γ, whose trained tensors are the displacements ϑ, and for the
gradient of a loss of f. In θ the rates of SGD and momentum are γ² times, those of Adam γ times as large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from featscale.errors import require

Role = Literal["input", "hidden", "branch", "readout", "bias"]
ROLES: tuple[Role, ...] = get_args(Role)
OptimizerName = Literal["sgd", "momentum", "adam"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


@dataclass(frozen=True)
class Power:
    r"""A product of powers of the width, the fan-in and the number of residual branches.

    .. math:: N^\text{N} \, n^\text{n} \, L^\text{L}

    >>> Power(N=1, n=-0.5)(N=64, n=16, L=1)
    16.0
    """

    N: float = 0.0
    n: float = 0.0
    L: float = 0.0

    def __call__(self, N: float, n: float, L: float) -> float:
        """Its value at width N, fan-in n and L branches."""
        return float(N**self.N * n**self.n * L**self.L)


ONE = Power()


@dataclass(frozen=True)
class Tag:
    """What a model says of a parameter: its role, the fan-in n of its layer (E|x|² for inputs) and the number L of residual
    branches that its layer's output is one of (1 outside of residual branches)."""

    role: Role
    fan_in: float
    branches: int = 1

    def __post_init__(self) -> None:
        require(self.role in ROLES, "role", self.role, "one of " + ", ".join(ROLES))
        require(0 < self.fan_in < math.inf, "fan_in", self.fan_in, "a number > 0")
        require(isinstance(self.branches, int) and self.branches >= 1, "branches", self.branches, "an integer >= 1")


@dataclass(frozen=True)
class TensorRule:
    r"""How one tensor scales.

    .. math:: h = m \, W x, \qquad W(0)_{ij} \sim N(0, \sigma^2 s^2), \qquad \eta = \eta_0 r_\text{optimiser}

    Source: one exponent a quantity as in the abc-parameterisation of Yang & Hu 2021, arXiv:2011.14522, for SGD; for Adam, whose step has a
    size of its own, as in Yang & Littwin 2023, arXiv:2308.01814; 1/√L branches as in Bordelon et al. 2023, arXiv:2309.16620. Derived
    here by counting how m Δϑ x grows, and measured: tests/parameterization/test_coordinates.py.
    Arguments: multiplier m, scale s, rates r of each optimiser. gradient, size of an entry of the gradient to ϑ: what Adam's ε is
    measured in. sigma >= 0.
    """

    multiplier: Power
    scale: Power
    rates: Mapping[OptimizerName, Power]
    gradient: Power = ONE
    sigma: float = 1.0


@dataclass(frozen=True)
class Rate:
    """eta, the learning rate of one tensor, and unit, what Adam's ε is multiplied by for it."""

    eta: float
    unit: float


@dataclass(frozen=True)
class Parameterization:
    """A row of the table: one rule for each role.

    Roles: `input`, weights that the data enter. `hidden`, weights between two layers that grow with N. `branch`, hidden weights
    of one of L residual branches. `readout`, weights from N features to the outputs. `bias`, biases of all but the readout (centring makes
    one there useless).
    """

    name: str
    input: TensorRule
    hidden: TensorRule
    branch: TensorRule
    readout: TensorRule
    bias: TensorRule = field(kw_only=True)

    def __getitem__(self, role: Role) -> TensorRule:
        """The rule of one role."""
        require(role in ROLES, "role", role, "one of " + ", ".join(ROLES))
        rule: TensorRule = getattr(self, role)
        return rule

    def multiplier(self, tag: Tag) -> float:
        """Forward multiplier of a tagged tensor. Readouts have fan-in N, so no multiplier needs N itself."""
        return self[tag.role].multiplier(1, tag.fan_in, tag.branches)

    def std(self, tag: Tag) -> float:
        """Initial standard deviation of a tagged tensor."""
        rule = self[tag.role]
        return rule.sigma * rule.scale(1, tag.fan_in, tag.branches)

    def output_size(self, N: int) -> float:
        """Size of an output at the start: N features of size 1, by random readout weights.

        >>> parameterization("mean_field").output_size(256)
        0.0625
        """
        readout = Tag("readout", N)
        return math.sqrt(N) * self.multiplier(readout) * self.std(readout)

    def rate(self, tag: Tag, optimizer: str, eta0: float, N: int) -> Rate:
        """Learning rate of the displacement of a tagged tensor.

        Arguments: optimizer, sgd, momentum or adam. eta0 > 0. N, width.
        Raises: BadInput that names the field.
        """
        rule = self[tag.role]
        require(optimizer in OPTIMIZERS, "optimizer", optimizer, "one of " + ", ".join(OPTIMIZERS))
        require(0 < eta0 < math.inf, "optimizer.eta0", eta0, "a number > 0")
        require(isinstance(N, int) and N >= 1, "model.N", N, "an integer >= 1")
        sizes = (N, tag.fan_in, tag.branches)
        power = rule.rates[optimizer]  # type: ignore[index]
        return Rate(eta0 * power(*sizes), rule.gradient(*sizes))


def _rates(gradient: Power, adam: Power) -> dict[OptimizerName, Power]:
    """SGD and momentum share their rates: momentum here averages gradients with weights that sum to one."""
    return {"sgd": gradient, "momentum": gradient, "adam": adam}


MEAN_FIELD = Parameterization(
    "mean_field",
    input=TensorRule(Power(n=-1 / 2), ONE, _rates(Power(N=1), Power(n=-1 / 2)), Power(N=-1, n=-1 / 2)),
    hidden=TensorRule(Power(n=-1 / 2), ONE, _rates(Power(N=1), Power(n=-1 / 2)), Power(N=-1, n=-1 / 2)),
    branch=TensorRule(
        Power(n=-1 / 2, L=-1 / 2), ONE, _rates(Power(N=1), Power(n=-1 / 2, L=-1 / 2)), Power(N=-1, n=-1 / 2, L=-1 / 2)
    ),
    readout=TensorRule(Power(n=-1), ONE, _rates(Power(N=1), ONE), Power(N=-1)),
    bias=TensorRule(Power(L=-1 / 2), ONE, _rates(Power(N=1), Power(L=-1 / 2)), Power(N=-1, L=-1 / 2), sigma=0),
)
r"""g = a·φ(h_D)/N, h_{l+1} = W φ(h_l)/√fan_in, all weights N(0, 1): features move by Θ(γ) and f at a speed Θ(1) at every N.

SGD at η₀N in ϑ (η₀γ²N in θ). Adam at η₀/√fan_in: its steps of one size add up coherently over the fan-in.
Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised, for SGD; Adam derived;
tests/parameterization/test_coordinates.py."""

NTK = Parameterization(
    "ntk",
    input=TensorRule(Power(n=-1 / 2), ONE, _rates(ONE, Power(N=-1 / 2, n=-1 / 2)), Power(N=-1 / 2, n=-1 / 2)),
    hidden=TensorRule(Power(n=-1 / 2), ONE, _rates(ONE, Power(N=-1 / 2, n=-1 / 2)), Power(N=-1 / 2, n=-1 / 2)),
    branch=TensorRule(
        Power(n=-1 / 2, L=-1 / 2),
        ONE,
        _rates(ONE, Power(N=-1 / 2, n=-1 / 2, L=-1 / 2)),
        Power(N=-1 / 2, n=-1 / 2, L=-1 / 2),
    ),
    readout=TensorRule(Power(n=-1 / 2), ONE, _rates(ONE, Power(N=-1 / 2)), Power(N=-1 / 2)),
    bias=TensorRule(Power(L=-1 / 2), ONE, _rates(ONE, Power(N=-1 / 2, L=-1 / 2)), Power(N=-1 / 2, L=-1 / 2), sigma=0),
)
r"""g = a·φ(h_D)/√N, all weights N(0, 1): the mean-field row at richness γ/√N, so features freeze as N grows.

Source: Jacot, Gabriel & Hongler 2018, arXiv:1806.07572; derived, tests/parameterization/test_coordinates.py."""

_PLAIN = TensorRule(ONE, Power(n=-1 / 2), _rates(ONE, ONE))
STANDARD = Parameterization(
    "standard",
    input=_PLAIN,
    hidden=_PLAIN,
    branch=TensorRule(Power(L=-1 / 2), Power(n=-1 / 2), _rates(ONE, ONE)),
    readout=_PLAIN,
    bias=TensorRule(Power(L=-1 / 2), ONE, _rates(ONE, ONE), sigma=0),
)
"""Weights N(0, 1/fan_in), no multipliers but those of residual branches, one rate η₀ for all: what frameworks do."""

TABLE = {row.name: row for row in (MEAN_FIELD, NTK, STANDARD)}


def parameterization(name: str) -> Parameterization:
    """The row of that name.

    Raises: BadInput if there is none.

    >>> parameterization("mean_field").multiplier(Tag("readout", fan_in=256))
    0.00390625
    """
    require(name in TABLE, "parameterization.name", name, "one of " + ", ".join(TABLE))
    return TABLE[name]
