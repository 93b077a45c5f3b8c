"""Residual networks: L branches, each with 1/√L, so that depth is one more size that nothing depends on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featscale.models.activations import Activation
from featscale.models.cnn import image_shape, pooled, stages
from featscale.models.mlp import require_sizes
from featscale.parameterization.layers import KERNEL, Layers


class ResidualMLP(nn.Module):
    r"""h_0 = W_in x, h_{l+1} = h_l + W_l φ(h_l)/√(depth · N), g = readout φ(h_depth)/N with the mean-field row.

    Source: 1/√depth branches of Bordelon, Noci, Li, Hanin & Pehlevan 2023, arXiv:2309.16620; the factors are those of the row's `branch`.
    Arguments: depth >= 1, number of residual branches. The rest as in :class:`featscale.models.mlp.MLP`.
    Raises: BadInput that names the field.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
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
        D = math.prod(input_shape)
        self.N, self.depth = N, depth
        self.phi = Activation(activation, relu_power)
        self.input = layers.linear(D, N, "input", bias, input_power)
        self.branches = nn.ModuleList(layers.linear(N, N, "branch", bias, branches=depth) for _ in range(depth))
        self.readout = layers.linear(N, outputs, "readout")
        self.flops = 2 * (D * N + depth * N**2 + N * outputs)
        """Floating-point operations of one input's forward pass, multiply and add counted as two, without φ and sums."""

    def chain(self) -> list[tuple[str, bool]]:
        """Its layers one after another: name, and whether the preactivations before are added. All but the first take φ of those."""
        return [("input", False), *((f"branches.{l}", True) for l in range(self.depth)), ("readout", False)]

    def features(self, x: Tensor) -> Tensor:
        """φ(h_depth), shape (B, N), of inputs (B, *input_shape)."""
        h = self.input(x.flatten(1))
        for branch in self.branches:
            h = h + branch(self.phi(h))
        phi: Tensor = self.phi(h)
        return phi

    def forward(self, x: Tensor) -> Tensor:
        """g(x), shape (B, outputs)."""
        g: Tensor = self.readout(self.features(x))
        return g


class ResidualCNN(nn.Module):
    r"""A 3×3 convolution to N channels, `depth` residual branches h + W * φ(h)/√(9N · depth), the mean of φ(h), a readout.

    2×2 average poolings of h stand before evenly spread branches.
    Source: as in :class:`ResidualMLP`.
    Arguments: input_shape (channels, height, width). depth >= 1, number of residual branches. poolings, 0 to depth, as the sides allow; None:
    as many as that allows, at most 3. The rest as in :class:`featscale.models.cnn.CNN`.
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
        self.input = layers.conv(channels, N, "input", bias, input_power)
        self.branches = nn.ModuleList(layers.conv(N, N, "branch", bias, branches=depth) for _ in range(depth))
        self.readout = layers.linear(N, outputs, "readout")
        self.pools = stages(depth, poolings, min(height, width))
        pixels = pooled((height, width), self.pools)
        self.flops = 2 * (KERNEL**2 * N * (channels * height * width + N * sum(pixels)) + N * outputs)
        """Floating-point operations of one input's forward pass, multiply and add counted as two, without φ, sums and pooling."""

    def features(self, x: Tensor) -> Tensor:
        """Spatial mean of φ(h_depth), shape (B, N), of inputs (B, *input_shape)."""
        h = self.input(x.contiguous(memory_format=torch.channels_last))
        for branch, pool in zip(self.branches, self.pools, strict=True):
            h = F.avg_pool2d(h, 2) if pool else h
            h = h + branch(self.phi(h))
        phi: Tensor = self.phi(h).mean((2, 3))
        return phi

    def forward(self, x: Tensor) -> Tensor:
        """g(x), shape (B, outputs)."""
        g: Tensor = self.readout(self.features(x))
        return g
