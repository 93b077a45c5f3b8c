"""Fully connected networks."""

from __future__ import annotations

import math

from torch import Tensor, nn

from featscale.errors import require
from featscale.models.activations import Activation
from featscale.parameterization.layers import Layers


class MLP(nn.Module):
    r"""g(x) = readout φ(h_depth), h_{l+1} = W_l φ(h_l), h_1 = W_0 x, each with the multiplier and scale of `layers`.

    With the mean-field row: h_1 = W_0 x/√E|x|², h_{l+1} = W_l φ(h_l)/√N, g = a·φ(h_depth)/N, all entries N(0, 1).

    Arguments: input_shape, flattened to D entries. outputs >= 1. N, width. depth >= 1, number of hidden layers.
    layers, which makes them from a row of the table and a seed. activation and relu_power as in
    :class:`featscale.models.activations.Activation`. input_power, mean square of an input entry, E|x|² = D ·
    input_power (1/2 for the circle). bias, whether hidden layers have one; biases start at zero.
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
        hidden = [layers.linear(D, N, "input", bias, input_power)]
        hidden += [layers.linear(N, N, "hidden", bias) for _ in range(depth - 1)]
        self.hidden = nn.ModuleList(hidden)
        self.readout = layers.linear(N, outputs, "readout")
        self.flops = 2 * (D * N + (depth - 1) * N**2 + N * outputs)
        """Floating-point operations of one input's forward pass, multiply and add counted as two, without φ."""

    def chain(self) -> list[tuple[str, bool]]:
        """Its layers one after another: name, and whether the preactivations before are added. All but the first take φ of those."""
        return [*((f"hidden.{l}", False) for l in range(self.depth)), ("readout", False)]

    def features(self, x: Tensor) -> Tensor:
        """φ(h_depth), shape (B, N), of inputs (B, *input_shape)."""
        h = x.flatten(1)
        for layer in self.hidden:
            h = self.phi(layer(h))
        return h

    def forward(self, x: Tensor) -> Tensor:
        """g(x), shape (B, outputs)."""
        g: Tensor = self.readout(self.features(x))
        return g


def require_sizes(N: int, depth: int, outputs: int) -> None:
    """Raise BadInput unless width, depth and number of outputs are positive integers."""
    for field, value in (("model.N", N), ("model.depth", depth), ("model.outputs", outputs)):
        require(isinstance(value, int) and value >= 1, field, value, "an integer >= 1")
