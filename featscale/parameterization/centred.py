"""The centred network f = [g(x; θ) − g(x; θ₀)]/γ."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from featscale.errors import require
from featscale.parameterization.rules import require_richness

# Below this richness float32 keeps too few digits of g − g₀.
GAMMA_FLOAT32 = 1e-2


class Centred(nn.Module):
    r"""A network minus its initial self, divided by the richness.

    .. math:: f(x; \theta) = \frac{g(x; \theta) - g(x; \theta_0)}{\gamma}

    θ₀ is kept in buffers, so a checkpoint holds it; f is exactly zero at θ₀. The parameters stay those of g, with
    their tags.

    Source: the parameterisation of Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised.
    Arguments: g, with its initial parameters, in the dtype of the run. gamma > 0.
    Raises: BadInput if gamma is 0 (its limit is the linearised network), or below 1e-2 in less than float64, where (g
    − g₀)/γ cancels.
    Cost: one more forward pass a call.
    """

    def __init__(self, g: nn.Module, gamma: float) -> None:
        super().__init__()
        require_richness(gamma)
        exact = all(parameter.dtype == torch.float64 for parameter in g.parameters())
        require(
            gamma >= GAMMA_FLOAT32 or exact,
            "parameterization.gamma",
            gamma,
            f"a number >= {GAMMA_FLOAT32} in float32, where (g - g0)/gamma cancels; or precision=float64",
        )
        self.g, self.gamma = g, gamma
        self.theta0_names = {name: "theta0_" + name.replace(".", "_") for name, _ in g.named_parameters()}
        for name, parameter in g.named_parameters():
            self.register_buffer(self.theta0_names[name], parameter.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, …) to outputs (B, outputs)."""
        return (self.g(x) - self.at_start(x)) / self.gamma

    def at_start(self, x: Tensor) -> Tensor:
        """g(x; θ₀)."""
        theta0 = {name: getattr(self, buffer) for name, buffer in self.theta0_names.items()}
        outputs: Tensor = functional_call(self.g, theta0, (x,))
        return outputs
