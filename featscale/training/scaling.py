"""How a run scales with width and how rich it is: what a run's `parameterization` group instantiates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featscale.errors import require
from featscale.parameterization.rules import Parameterization, parameterization


@dataclass(frozen=True)
class Scaling:
    """A row of the parameterisation table and the richness.

    Arguments: name, a row: mean_field, ntk or standard (networks only; the solvable model is mean-field by definition). gamma >= 0, richness;
    a network needs gamma > 0.
    """

    name: str
    gamma: float

    def __post_init__(self) -> None:
        parameterization(self.name)
        ok = isinstance(self.gamma, (int, float)) and 0 <= self.gamma < math.inf
        require(ok, "parameterization.gamma", self.gamma, "a number >= 0")

    @property
    def row(self) -> Parameterization:
        """The row of the table."""
        return parameterization(self.name)
