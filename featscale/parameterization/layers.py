"""Layers that get their multiplier and scale from a row of the table, and the rates of a model's tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import BadInput, require
from featscale.parameterization.rules import Parameterization, Rate, Role, Tag

KERNEL = 3
# Between N features and N features: where the operations of a network are, and what autocast may round.
WIDE: tuple[Role, ...] = ("hidden", "branch")


def tag(parameter: nn.Parameter, label: Tag) -> nn.Parameter:
    """The parameter, marked for :func:`tensor_rates`; a deep copy of it loses the mark."""
    parameter.tag = label  # type: ignore[attr-defined]
    return parameter


def tag_of(name: str, parameter: Tensor) -> Tag:
    """The tag of the parameter called `name`.

    Raises: BadInput if it has none.
    """
    label: Tag | None = getattr(parameter, "tag", None)
    if label is None:
        raise BadInput("model", name, "parameters tagged with a role (a deep copy of a parameter loses its tag)")
    return label


def product(of: Callable[[Tensor, Tensor], Tensor], x: Tensor, W: Tensor, wide: bool) -> Tensor:
    """of(x, W) in the dtype of W; under torch.autocast `wide` ones take its dtype for their operands, and others all digits."""
    if not torch.is_autocast_enabled(x.device.type):
        return of(x, W)
    if wide:
        return of(x, W).to(W.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return of(x, W)


def convolution(x: Tensor, W: Tensor) -> Tensor:
    """3×3, stride 1, zero padding."""
    return F.conv2d(x, W, padding=KERNEL // 2)


class ScaledLinear(nn.Module):
    """h = multiplier · W x + bias_multiplier · b, with W (fan_out, fan_in) and b (fan_out,) or None."""

    def __init__(
        self, weight: nn.Parameter, multiplier: float, bias: nn.Parameter | None, bias_multiplier: float
    ) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.multiplier, self.bias_multiplier = multiplier, bias_multiplier
        self.wide = tag_of("weight", weight).role in WIDE

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, fan_in) to outputs (B, fan_out)."""
        h = self.multiplier * product(F.linear, x, self.weight, self.wide)
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
        self.wide = tag_of("weight", weight).role in WIDE

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, height, width) to (B, fan_out, height, width)."""
        # The multiplier is on the weights here: there are fewer of them than of pixels.
        h = product(convolution, x, self.multiplier * self.weight, self.wide)
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
        self, fan_in: int, fan_out: int, role: Role, bias: bool = False, input_power: float = 1.0, branches: int = 1
    ) -> ScaledLinear:
        """A dense layer.

        Arguments: fan_in, fan_out, sizes. role of the weights. bias, whether it has one. input_power, mean square of
        an input entry: the rule sees fan_in · input_power = E|x|², so that the outputs start with unit variance
        whatever the scale of the data. branches, of how many residual branches it is one.
        """
        return ScaledLinear(*self._parameters((fan_out, fan_in), Tag(role, fan_in * input_power, branches), bias))

    def conv(
        self, channels: int, fan_out: int, role: Role, bias: bool = False, input_power: float = 1.0, branches: int = 1
    ) -> ScaledConv2d:
        """A 3×3 convolution of `channels` to `fan_out` channels, fan-in 9 · channels; the rest as in :meth:`linear`."""
        shape = (fan_out, channels, KERNEL, KERNEL)
        label = Tag(role, KERNEL**2 * channels * input_power, branches)
        weight, multiplier, b, b_multiplier = self._parameters(shape, label, bias)
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return ScaledConv2d(weight, multiplier, b, b_multiplier)

    def _parameters(
        self, shape: tuple[int, ...], label: Tag, bias: bool
    ) -> tuple[nn.Parameter, float, nn.Parameter | None, float]:
        of_bias = Tag("bias", label.fan_in, label.branches)
        weight = self._drawn(shape, label)
        b = self._drawn(shape[:1], of_bias) if bias else None
        return weight, self.rule.multiplier(label), b, self.rule.multiplier(of_bias)

    def _drawn(self, shape: tuple[int, ...], label: Tag) -> nn.Parameter:
        draw = self.rule.std(label) * torch.randn(shape, generator=self._rng, dtype=torch.float64)
        return tag(nn.Parameter(draw.to(self.dtype)), label)


def tensor_rates(
    model: nn.Module, rule: Parameterization, optimizer: str, eta0: float, N: int
) -> list[tuple[nn.Parameter, Rate]]:
    """The trained tensors of `model`, in its order, each with the rate that its tag has in the row `rule`.

    Arguments: model, whose trainable parameters are all tagged, a :class:`featscale.parameterization.centred.Centred` for a run. optimizer,
    sgd, momentum or adam. eta0 > 0. N, width.
    Raises: BadInput that names the parameter without a tag, or the value out of range.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [(parameter, rule.rate(tag_of(name, parameter), optimizer, eta0, N)) for name, parameter in trained]
