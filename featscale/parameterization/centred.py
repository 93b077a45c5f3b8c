"""The centred network f = [g(x; θ₀ + γϑ) − g(x; θ₀)]/γ, trained in the displacement ϑ; at γ = 0 its linearisation."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from featscale.errors import require
from featscale.parameterization.layers import tag, tag_of

# Below this richness float32 keeps too few digits of g − g₀.
GAMMA_FLOAT32 = 1e-2


class Centred(nn.Module):
    r"""A network minus its initial self, divided by the richness, as a function of its displacement.

    .. math::
        f(x; \vartheta) = \frac{g(x; \theta_0 + \gamma\vartheta) - g(x; \theta_0)}{\gamma}, \qquad
        f(x; \vartheta) \to \partial_\theta g(x; \theta_0) \cdot \vartheta \quad (\gamma \to 0)

    The parameters are ϑ, zero at the start, named as those of g with ``/`` for ``.`` and tagged as they are; g keeps θ₀, which is not
    trained. Gradients of f with respect to ϑ have the same size at every γ, so nothing under- or overflows as γ → 0; γ = 0 is served
    as the Jacobian-vector product, the network linearised at θ₀.

    Source: the parameterisation of Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised; the displacement is a change of
    variables (tests/parameterization/test_centred.py).
    Arguments: g, with its initial parameters tagged, in the dtype of the run; it is taken over and frozen. gamma >= 0.
    Raises: BadInput if gamma is negative, or in (0, 1e-2) in less than float64.
    Accuracy: the difference loses digits as 1/γ: f is off by about ε |g|/γ, ε the rounding of the dtype, 6e-8 or 1e-16: at
    γ = 1e-2 in float32 measured 2e-5 relative, at γ = 1e-3 in float64 1e-12. The Jacobian-vector product is exact to rounding.
    Cost: γ > 0, one more forward pass a call; γ = 0, about three forward passes, six with the gradient.
    """

    def __init__(self, g: nn.Module, gamma: float) -> None:
        super().__init__()
        require(
            0 <= gamma < math.inf, "parameterization.gamma", gamma, "a number >= 0 (0 trains the linearised network)"
        )
        exact = all(parameter.dtype == torch.float64 for parameter in g.parameters())
        require(
            gamma == 0 or gamma >= GAMMA_FLOAT32 or exact,
            "parameterization.gamma",
            gamma,
            f"a number >= {GAMMA_FLOAT32} in float32, where (g - g0)/gamma cancels; or precision=float64; or 0, the limit",
        )
        self.g, self.gamma = g, gamma
        self.displacement = nn.ParameterDict()
        for name, theta0 in g.named_parameters():
            self.displacement[name.replace(".", "/")] = tag(
                nn.Parameter(torch.zeros_like(theta0)), tag_of(name, theta0)
            )
            theta0.requires_grad_(False)

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """Inputs (B, …) to outputs (B, outputs); start, g(x; θ₀), where it is known already."""
        if self.gamma == 0:
            return self.linearised(x)
        trained: Tensor = functional_call(self.g, self.theta(), (x,))
        return (trained - (self.at_start(x) if start is None else start)) / self.gamma

    def at_start(self, x: Tensor) -> Tensor:
        """g(x; θ₀)."""
        outputs: Tensor = self.g(x)
        return outputs

    def linearised(self, x: Tensor) -> Tensor:
        """∂g(x; θ₀)/∂θ · ϑ, the limit γ → 0 of f at the present displacement."""
        theta0 = {name: theta0.detach() for name, theta0 in self.g.named_parameters()}
        along = {name: self._of(name) for name in theta0}
        return jvp(lambda theta: functional_call(self.g, theta, (x,)), (theta0,), (along,))[1]

    def theta(self) -> dict[str, Tensor]:
        """θ = θ₀ + γϑ by the names of g."""
        return {name: torch.add(theta0, self._of(name), alpha=self.gamma) for name, theta0 in self.g.named_parameters()}

    @torch.no_grad()
    def trained(self) -> nn.Module:
        """A copy of g at the present θ, e.g. to look at its features; at γ = 0 that is g at its start."""
        g = copy.deepcopy(self.g)
        g.load_state_dict(self.theta(), strict=False)
        return g

    def _of(self, name: str) -> Tensor:
        displacement: Tensor = self.displacement[name.replace(".", "/")]
        return displacement
