"""Convolutional networks."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import require
from featscale.models.activations import Activation
from featscale.models.mlp import require_sizes
from featscale.parameterization.layers import KERNEL, Layers

# Poolings unless told otherwise: 28 pixels a side become 3, 32 become 4.
POOLINGS = 3


class CNN(nn.Module):
    r"""3×3 convolutions to N channels, each with φ; 2×2 average poolings between them, a global average, a readout.

    With the mean-field row: convolutions W * φ(h)/√(9 · channels), g = a·(spatial mean of φ(h_depth))/N, all entries
    N(0, 1).

    Arguments: input_shape (channels, height, width), e.g. (1, 28, 28) or (3, 32, 32). outputs >= 1. N, channels. depth >= 1, number of
    convolutions. input_power, mean square of a pixel. poolings, 0 to depth − 1 and as the sides allow, spread evenly between the
    convolutions; None: as many as that allows, at most 3. The rest as in :class:`featscale.models.mlp.MLP`.
    Raises: BadInput that names the field.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        outputs: int,
        N: int,
        depth: int,
        layers: Layers,
        activation: str = "relu",
        relu_power: float = 1.0,
        input_power: float = 1.0,
        bias: bool = False,
        poolings: int | None = None,
    ) -> None:
        super().__init__()
        require_sizes(N, depth, outputs)
        channels, height, width = image_shape(input_shape)
        self.N, self.depth = N, depth
        self.phi = Activation(activation, relu_power)
        convolutions = [layers.conv(channels, N, "input", bias, input_power)]
        convolutions += [layers.conv(N, N, "hidden", bias) for _ in range(depth - 1)]
        self.convolutions = nn.ModuleList(convolutions)
        self.readout = layers.linear(N, outputs, "readout")
        self.pools = stages(depth - 1, poolings, min(height, width))
        pixels = pooled((height, width), self.pools)
        self.flops = 2 * (KERNEL**2 * N * (channels * height * width + N * sum(pixels)) + N * outputs)
        """Floating-point operations of one input's forward pass, multiply and add counted as two, without φ and pooling."""

    def features(self, x: Tensor) -> Tensor:
        """Spatial mean of φ(h_depth), shape (B, N), of inputs (B, *input_shape)."""
        # Twice as fast on a CPU at small N, and what tensor cores want.
        x = x.contiguous(memory_format=torch.channels_last)
        h = self.phi(self.convolutions[0](x))
        for convolution, pool in zip(self.convolutions[1:], self.pools, strict=True):
            h = self.phi(convolution(F.avg_pool2d(h, 2) if pool else h))
        return h.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """g(x), shape (B, outputs)."""
        g: Tensor = self.readout(self.features(x))
        return g


def image_shape(input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width; BadInput unless there are three."""
    require(
        len(input_shape) == 3,
        "model",
        tuple(input_shape),
        "inputs of shape (channels, height, width) for a convolutional network",
    )
    channels, height, width = input_shape
    return channels, height, width


def stages(layers: int, poolings: int | None, side: int) -> list[bool]:
    """Before which of `layers` layers a 2×2 pooling stands: `poolings` of them, evenly spread, images of `side` pixels.

    >>> stages(6, 3, side=28)
    [True, False, True, False, True, False]
    """
    most = min(layers, side.bit_length() - 1)
    count = min(most, POOLINGS) if poolings is None else poolings
    require(
        isinstance(count, int) and 0 <= count <= most,
        "model.poolings",
        count,
        f"an integer from 0 to {most}: one a layer, and each halves the {side} pixels of a side",
    )
    return [layer * count // layers > (layer - 1) * count // layers for layer in range(layers)]


def pooled(shape: tuple[int, int], pools: list[bool]) -> list[int]:
    """Pixels that each layer sees."""
    height, width = shape
    return [(height >> n) * (width >> n) for n in itertools.accumulate(map(int, pools))]
