"""Convolutional networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.errors import require
from featscale.models.activations import Activation
from featscale.models.mlp import require_sizes
from featscale.parameterization.layers import KERNEL, Layers


class CNN(nn.Module):
    r"""3×3 convolutions to N channels, each with φ; 2×2 average pooling between them, a global average, a readout.

    With the mean-field row: convolutions W * φ(h)/√(9 · channels), g = a·(spatial mean of φ(h_depth))/N, all entries
    N(0, 1).

    Arguments: input_shape (channels, height, width), e.g. (1, 28, 28) or (3, 32, 32); its sides must allow depth − 1
    poolings. outputs >= 1. N, channels. depth >= 1, number of convolutions. input_power, mean square of a pixel. The
    rest as in :class:`featscale.models.mlp.MLP`.
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
    ) -> None:
        super().__init__()
        require_sizes(N, depth, outputs)
        require(
            len(input_shape) == 3,
            "model",
            tuple(input_shape),
            "inputs of shape (channels, height, width) for a convolutional network",
        )
        channels, height, width = input_shape
        side = min(height, width)
        require(
            side >> (depth - 1) >= 1,
            "model.depth",
            depth,
            f"at most {side.bit_length()}: each pooling halves the {side} pixels of a side",
        )
        self.N, self.depth = N, depth
        self.phi = Activation(activation, relu_power)
        convolutions = [layers.conv(channels, N, "input", bias, input_power)]
        convolutions += [layers.conv(N, N, "hidden", bias) for _ in range(depth - 1)]
        self.convolutions = nn.ModuleList(convolutions)
        self.readout = layers.linear(N, outputs, "readout")
        pixels = [(height >> block) * (width >> block) for block in range(depth)]
        self.flops = 2 * (KERNEL**2 * N * (channels * pixels[0] + N * sum(pixels[1:])) + N * outputs)
        """Floating-point operations of one input's forward pass, multiply and add counted as two, without φ and pooling."""

    def features(self, x: Tensor) -> Tensor:
        """Spatial mean of φ(h_depth), shape (B, N), of inputs (B, *input_shape)."""
        # Twice as fast on a CPU at small N, and what tensor cores want.
        x = x.contiguous(memory_format=torch.channels_last)
        h = self.phi(self.convolutions[0](x))
        for convolution in self.convolutions[1:]:
            h = self.phi(convolution(F.avg_pool2d(h, 2)))
        return h.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """g(x), shape (B, outputs)."""
        g: Tensor = self.readout(self.features(x))
        return g
