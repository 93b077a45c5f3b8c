"""Gaussian features with a power-law spectrum: the task of the solvable model."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from datamodules.keyed import generator
from datamodules.stream import Stream
from featscale.errors import require
from featscale.spectra import PowerLaw

# A network reads features one by one; the solvable model streams over any number of modes.
STORED_MODES = 10**6


class PowerLawFeatures(Stream):
    r"""Features ψ ~ N(0, diag k^-α) in R^M and targets y = w*·ψ + σε, w*_k = k^-(α(β−1)+1)/2.

    Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858.
    Arguments: alpha > 1. beta > 0. M >= 1, number of modes. B, samples a step, or inf for the population gradient (the solvable model only).
    sigma >= 0, label noise. test_size, samples of the held-out set that networks are tested on.
    """

    outputs = 1

    def __init__(
        self, alpha: float, beta: float, M: int, B: float = math.inf, sigma: float = 0.0, test_size: int = 4096
    ) -> None:
        super().__init__(B)
        require(0 <= sigma < math.inf, "data.sigma", sigma, "a number >= 0")
        require(test_size >= 1, "data.test_size", test_size, "an integer >= 1")
        self.task = PowerLaw(alpha, beta, M)
        self.sigma, self.test_size = sigma, test_size
        self.input_shape = (M,)
        self.input_power = float(self.task.lambdas().mean()) if M <= STORED_MODES else math.nan

    def setup(self, stage: str | None = None) -> None:
        """Put the spectrum on the device, where it is small enough to be sampled; the solvable model needs no samples."""
        del stage
        if self.task.M > STORED_MODES:
            return
        self.root = torch.from_numpy(np.sqrt(self.task.lambdas())).to(self.device, self.dtype)
        self.w_star = torch.from_numpy(self.task.w_star()).to(self.device, self.dtype)

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Fresh samples; shapes (B, M) and (B, 1)."""
        require(math.inf != self.B, "data.B", self.B, "an integer >= 1 for a model that sees samples")
        rng = generator(seed, step, self.device)
        psi, y = self._samples(int(self.B), rng)
        return psi, y + self.sigma * torch.randn(y.shape, generator=rng, device=self.device, dtype=self.dtype)

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """Samples without label noise, the same for every seed."""
        psi, y = self._samples(self.test_size, generator(0, -1, self.device))
        return psi, y, torch.full((self.test_size,), 1 / self.test_size, dtype=self.dtype, device=self.device)

    def _samples(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        psi = self.root * torch.randn(n, self.task.M, generator=rng, device=self.device, dtype=self.dtype)
        return psi, (psi @ self.w_star)[:, None]
