"""Optimisers as data: what a run's `optimizer` group instantiates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from featscale.errors import require


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent at rate eta0 times the rate that the parameterisation gives each tensor.

    Arguments: eta0 > 0; flow time is t = eta0 * step for every model.
    """

    eta0: float

    def __post_init__(self) -> None:
        require(
            isinstance(self.eta0, (int, float)) and 0 < self.eta0 < math.inf,
            "optimizer.eta0",
            self.eta0,
            "a number > 0",
        )

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """The torch optimiser of parameter groups that each carry their own `lr`."""
        return torch.optim.SGD(groups)
