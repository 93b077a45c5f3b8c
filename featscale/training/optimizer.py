"""Optimisers as update rules on tensors: what a run's `optimizer` group instantiates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from featscale.errors import require
from featscale.parameterization.rules import OptimizerName
from featscale.training.graph import Numbers


class Optimizer(Protocol):
    """An update rule: in place, tensor by tensor, so that it serves one network and a stack of them alike.

    name, its column in the parameterisation's table. eta0 > 0, the rate that the table multiplies. state, names of the tensors that it keeps
    for each trained one, zero at the start and of its shape.
    """

    @property
    def name(self) -> OptimizerName:
        """sgd, momentum or adam."""

    @property
    def eta0(self) -> float:
        """The rate that the table multiplies."""

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the tensors kept for each trained one."""

    def numbers(self, step: int) -> tuple[float, ...]:
        """All of an update that depends on the number of updates made before it."""

    def update(
        self, theta: Tensor, G: Tensor, eta: Tensor | float, unit: float, kept: tuple[Tensor, ...], numbers: Numbers
    ) -> None:
        """Move `theta` and what is `kept` for it by one step.

        Arguments: theta, a tensor of any shape. G, the gradient there, which may be overwritten. eta, its rate, a number or a tensor that
        broadcasts. unit, size of an entry of G (Adam's ε is measured in it). kept, the tensors of `state`. numbers, those of the step, or
        tensors without axes that hold them.
        """


@dataclass(frozen=True)
class SGD:
    r"""Stochastic gradient descent, θ ← θ − η G.

    Arguments: eta0 > 0; flow time is t = eta0 · step for every model.
    """

    eta0: float
    name: ClassVar[OptimizerName] = "sgd"
    state: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        _require_rate(self.eta0)

    def numbers(self, step: int) -> tuple[float, ...]:
        """None: every update is the same."""
        del step
        return ()

    def update(
        self, theta: Tensor, G: Tensor, eta: Tensor | float, unit: float, kept: tuple[Tensor, ...], numbers: Numbers
    ) -> None:
        """θ ← θ − η G."""
        del unit, kept, numbers
        theta.sub_(G.mul_(eta))


@dataclass(frozen=True)
class Momentum:
    r"""Heavy-ball SGD, with weights of past gradients that sum to one, so that rates and flow time are those of SGD.

    .. math:: m \leftarrow \mu m + G, \qquad \theta \leftarrow \theta - \eta (1 - \mu)\, m, \qquad t = \eta_0 \cdot \text{steps}

    Equal to torch.optim.SGD with lr = η(1 − μ) and momentum = μ (tests/training/test_optimizer.py).
    Arguments: eta0 > 0. mu, 0 <= mu < 1.
    """

    eta0: float
    mu: float = 0.9
    name: ClassVar[OptimizerName] = "momentum"
    state: ClassVar[tuple[str, ...]] = ("m",)

    def __post_init__(self) -> None:
        _require_rate(self.eta0)
        _require_decay("optimizer.mu", self.mu)

    def numbers(self, step: int) -> tuple[float, ...]:
        """None: every update is the same."""
        del step
        return ()

    def update(
        self, theta: Tensor, G: Tensor, eta: Tensor | float, unit: float, kept: tuple[Tensor, ...], numbers: Numbers
    ) -> None:
        """m ← μ m + G, θ ← θ − η (1 − μ) m."""
        del unit, numbers
        (m,) = kept
        m.mul_(self.mu).add_(G)
        theta.sub_(m * (eta * (1 - self.mu)))


@dataclass(frozen=True)
class Adam:
    r"""Adam with bias correction.

    .. math::
        m \leftarrow b_1 m + (1 - b_1) G, \quad v \leftarrow b_2 v + (1 - b_2) G^2, \quad
        \theta \leftarrow \theta - \eta \frac{m / (1 - b_1^{s+1})}{\sqrt{v / (1 - b_2^{s+1})} + \varepsilon u}

    with s the updates made before and u the size of an entry of G in the table, so that ε means the same at every width; at u = 1 equal to
    torch.optim.Adam (tests/training/test_optimizer.py). Its steps do not shrink with the gradient: t = eta0 · step is a label here, no
    flow time, and richness enters as γ where SGD's enters as γ².

    Source: Kingma & Ba 2015, arXiv:1412.6980.
    Arguments: eta0 > 0. adam_betas (b1, b2), each in [0, 1). eps > 0.
    """

    eta0: float
    adam_betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    name: ClassVar[OptimizerName] = "adam"
    state: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        _require_rate(self.eta0)
        require(len(self.adam_betas) == 2, "optimizer.adam_betas", self.adam_betas, "two numbers from 0 to below 1")
        for b in self.adam_betas:
            _require_decay("optimizer.adam_betas", b)
        require(0 < self.eps < math.inf, "optimizer.eps", self.eps, "a number > 0")

    def numbers(self, step: int) -> tuple[float, ...]:
        """1 − b1^(s+1) and 1 − b2^(s+1)."""
        b1, b2 = self.adam_betas
        return 1 - b1 ** (step + 1), 1 - b2 ** (step + 1)

    def update(
        self, theta: Tensor, G: Tensor, eta: Tensor | float, unit: float, kept: tuple[Tensor, ...], numbers: Numbers
    ) -> None:
        """The three assignments above."""
        (m, v), (c1, c2) = kept, numbers
        b1, b2 = self.adam_betas
        m.lerp_(G, 1 - b1)
        v.mul_(b2).addcmul_(G, G, value=1 - b2)
        root = torch.sqrt(v / c2).add_(self.eps * unit)
        theta.sub_((m / root).mul_(eta / c1))


def _require_rate(eta0: float) -> None:
    require(isinstance(eta0, (int, float)) and 0 < eta0 < math.inf, "optimizer.eta0", eta0, "a number > 0")


def _require_decay(field: str, b: float) -> None:
    require(isinstance(b, (int, float)) and 0 <= b < 1, field, b, "a number from 0 to below 1")
