"""Activations, each with the gain that keeps a unit variance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import require

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "erf": torch.erf, "gelu": F.gelu}


class Activation(nn.Module):
    r"""φ(h) = σ(h)/√E σ(z)², z ~ N(0, 1): with it a layer W φ(h)/√fan_in has unit variance if h has.

    For σ = ReLU^q the second moment is 2^(q−1) Γ(q + ½)/√π: √2 ReLU at q = 1.

    Derived; tests/models/test_activations.py compares with the average over samples.
    Arguments: name, relu, tanh, erf or gelu. relu_power, q of ReLU^q, q > 1/2 so that its derivative has a second
    moment.
    Raises: BadInput for another name, or a power beside another activation than relu.
    """

    def __init__(self, name: str = "relu", relu_power: float = 1.0) -> None:
        super().__init__()
        require(name == "relu" or name in SMOOTH, "model.activation", name, "one of relu, " + ", ".join(SMOOTH))
        require(0.5 < relu_power < math.inf, "model.relu_power", relu_power, "a number > 1/2")
        require(
            name == "relu" or relu_power == 1,
            "model.relu_power",
            relu_power,
            f"1 with activation {name}: it belongs to relu",
        )
        self.name, self.relu_power = name, relu_power
        self.gain = 1 / math.sqrt(relu_second_moment(relu_power) if name == "relu" else smooth_second_moment(name))

    def forward(self, h: Tensor) -> Tensor:
        """Entry by entry."""
        return self.gain * self._sigma(h)

    def _sigma(self, h: Tensor) -> Tensor:
        if self.name != "relu":
            return SMOOTH[self.name](h)
        if self.relu_power == 1:
            return F.relu(h)
        if self.relu_power > 1:
            return F.relu(h) ** self.relu_power
        # The derivative of h^q at 0 is infinite for q < 1: keep it out of the gradient of what is off.
        on = h > 0
        return torch.where(on, torch.where(on, h, 1.0) ** self.relu_power, 0.0)

    def extra_repr(self) -> str:
        """Name, power and gain."""
        return f"{self.name}, relu_power={self.relu_power:g}, gain={self.gain:.4f}"


def relu_second_moment(q: float) -> float:
    """E ReLU(z)^2q = 2^(q−1) Γ(q + ½)/√π for z ~ N(0, 1)."""
    return 2 ** (q - 1) * math.gamma(q + 0.5) / math.sqrt(math.pi)


def smooth_second_moment(name: str) -> float:
    """E σ(z)² for z ~ N(0, 1) by the trapezoidal rule, which is exact to rounding for analytic σ."""
    z = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    weights = torch.exp(-(z**2) / 2)
    return float((weights * SMOOTH[name](z) ** 2).sum() / weights.sum())
