"""Layers that get their multiplier and scale from a row of the table, and optimiser groups that get their rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import require
from featscale.parameterization.rules import Parameterization, Role, require_richness

KERNEL = 3


def tag(parameter: nn.Parameter, role: Role, fan_in: float) -> nn.Parameter:
    """The parameter, marked for :func:`parameter_groups` with role and fan-in; a deep copy of it loses the marks."""
    parameter.role, parameter.fan_in = role, fan_in  # type: ignore[attr-defined]
    return parameter


class ScaledLinear(nn.Module):
    """h = multiplier · W x + bias_multiplier · b, with W (fan_out, fan_in) and b (fan_out,) or None."""

    def __init__(
        self, weight: nn.Parameter, multiplier: float, bias: nn.Parameter | None, bias_multiplier: float
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.multiplier, self.bias_multiplier = multiplier, bias_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, fan_in) to outputs (B, fan_out)."""
        h = self.multiplier * F.linear(x, self.weight)
        return h if self.bias is None else h + self.bias_multiplier * self.bias

    def extra_repr(self) -> str:
        """Sizes and multiplier."""
        fan_out, fan_in = self.weight.shape
        return f"fan_in={fan_in}, fan_out={fan_out}, multiplier={self.multiplier:g}, bias={self.bias is not None}"


class ScaledConv2d(nn.Module):
    """A 3×3 convolution, stride 1, zero padding, times its multiplier; W (fan_out, channels, 3, 3), b per channel or None."""

    def __init__(
        self, weight: nn.Parameter, multiplier: float, bias: nn.Parameter | None, bias_multiplier: float
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.multiplier, self.bias_multiplier = multiplier, bias_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, height, width) to (B, fan_out, height, width)."""
        # The multiplier is on the weights here: there are fewer of them than of pixels.
        h = F.conv2d(x, self.multiplier * self.weight, padding=KERNEL // 2)
        return h if self.bias is None else h + self.bias_multiplier * self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Sizes and multiplier."""
        fan_out, channels = self.weight.shape[:2]
        return f"channels={channels}, fan_out={fan_out}, multiplier={self.multiplier:g}, bias={self.bias is not None}"


class Layers:
    """Makes a network's layers, one after another, by one row of the table and from one seed.

    Weights are drawn in float64 on the CPU and then rounded, so that a seed means the same network in every dtype and
    on every device.

    Arguments: rule, the row. seed >= 0. dtype of the parameters.
    """

    def __init__(self, rule: Parameterization, seed: int, dtype: torch.dtype = torch.float32) -> None:
        require(isinstance(seed, int) and seed >= 0, "seed", seed, "an integer >= 0")
        self.rule, self.dtype = rule, dtype
        self._rng = torch.Generator().manual_seed(seed)

    def linear(
        self, fan_in: int, fan_out: int, role: Role, bias: bool = False, input_power: float = 1.0
    ) -> ScaledLinear:
        """A dense layer.

        Arguments: fan_in, fan_out, sizes. role of the weights. bias, whether it has one. input_power, mean square of
        an input entry: the rule sees fan_in · input_power = E|x|², so that the outputs start with unit variance
        whatever the scale of the data.
        """
        return ScaledLinear(*self._parameters((fan_out, fan_in), role, bias, fan_in * input_power))

    def conv(
        self, channels: int, fan_out: int, role: Role, bias: bool = False, input_power: float = 1.0
    ) -> ScaledConv2d:
        """A 3×3 convolution of `channels` to `fan_out` channels, fan-in 9 · channels; the rest as in :meth:`linear`."""
        shape = (fan_out, channels, KERNEL, KERNEL)
        weight, multiplier, b, b_multiplier = self._parameters(shape, role, bias, KERNEL**2 * channels * input_power)
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return ScaledConv2d(weight, multiplier, b, b_multiplier)

    def _parameters(
        self, shape: tuple[int, ...], role: Role, bias: bool, fan_in: float
    ) -> tuple[nn.Parameter, float, nn.Parameter | None, float]:
        require(0 < fan_in < math.inf, "fan_in", fan_in, "a number > 0")
        weight = self._drawn(shape, role, fan_in)
        b = self._drawn(shape[:1], "bias", fan_in) if bias else None
        return weight, self.rule[role].multiplier(fan_in), b, self.rule["bias"].multiplier(fan_in)

    def _drawn(self, shape: tuple[int, ...], role: Role, fan_in: float) -> nn.Parameter:
        draw = self.rule[role].std(fan_in) * torch.randn(shape, generator=self._rng, dtype=torch.float64)
        return tag(nn.Parameter(draw.to(self.dtype)), role, fan_in)


def parameter_groups(
    model: nn.Module, rule: Parameterization, eta0: float, gamma: float, N: int
) -> list[dict[str, Any]]:
    r"""The groups of torch.optim.SGD: the tensors of each role with the rate that `rule` gives them.

    .. math:: \eta_\text{role} = \eta_0 \gamma^2 N^{c_\text{role}}, \qquad t = \eta_0 \cdot \text{steps}

    for the gradient of half the mean squared error of f = [g − g(θ₀)]/γ.
    Arguments: model, whose trainable parameters are all tagged. eta0 > 0. gamma > 0. N, width.
    Returns: one dict a role, with params, lr and role.
    Raises: BadInput that names the parameter without a tag, or the value out of range.
    """
    require(0 < eta0 < math.inf, "optimizer.eta0", eta0, "a number > 0")
    require_richness(gamma)
    require(isinstance(N, int) and N >= 1, "model.N", N, "an integer >= 1")
    members: dict[Role, list[nn.Parameter]] = {}
    for role, parameter in _tagged(model):
        members.setdefault(role, []).append(parameter)
    return [{"params": members[role], "lr": rule[role].rate(eta0, gamma, N), "role": role} for role in members]


def _tagged(model: nn.Module) -> Iterator[tuple[Role, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            role = getattr(parameter, "role", None)
            require(
                role is not None,
                "model",
                name,
                "parameters tagged with a role (a deep copy of a parameter loses its tag)",
            )
            yield role, parameter  # type: ignore[misc]
