"""Activations, each with the gain that keeps a unit variance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import require


def _erf_backward(d: Tensor, h: Tensor, out: Tensor) -> Tensor:
    return torch.mul(h, h, out=out).neg_().exp_().mul_(2 / math.sqrt(math.pi)).mul_(d)


SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "erf": torch.erf, "gelu": F.gelu}
# The same into a given tensor, and d σ'(h) from d, h and z = σ(h).
OUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda h, out: torch.tanh(h, out=out),
    "erf": lambda h, out: torch.erf(h, out=out),
    "gelu": lambda h, out: torch.ops.aten.gelu.out(h, out=out),
}
BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "tanh": lambda d, h, z, out: torch.ops.aten.tanh_backward.grad_input(d, z, grad_input=out),
    "erf": lambda d, h, z, out: _erf_backward(d, h, out),
    "gelu": lambda d, h, z, out: torch.ops.aten.gelu_backward.grad_input(d, h, grad_input=out),
}


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

    @property
    def in_place(self) -> bool:
        """Whether :meth:`sigma` may overwrite h, because :meth:`backward` does without it."""
        return self.name == "relu" and self.relu_power == 1

    def sigma(self, h: Tensor, out: Tensor) -> Tensor:
        """σ(h), without the gain, into `out`, which may be `h` where `in_place`."""
        if self.name != "relu":
            return OUT[self.name](h, out)
        torch.clamp_min(h, 0, out=out)
        return out if self.relu_power == 1 else out.pow_(self.relu_power)

    def backward(self, d: Tensor, h: Tensor, z: Tensor, out: Tensor) -> Tensor:
        """d σ'(h) into `out`, where z = σ(h); `out` is none of the others. What autograd makes of :meth:`forward`, without the gain."""
        if self.name != "relu":
            return BACKWARD[self.name](d, h, z, out)
        if self.relu_power == 1:
            return torch.ops.aten.threshold_backward.grad_input(d, z, 0, grad_input=out)
        torch.clamp_min(h, 0, out=out)
        off = out == 0
        return out.pow_(self.relu_power - 1).mul_(self.relu_power).mul_(d).masked_fill_(off, 0)

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
