"""Fourier series on the circle: the task on which a network's exponents are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.keyed import generator
from datamodules.stream import Stream
from featscale.errors import require
from featscale.spectra import Exponents, circle_exponents

K_MAX = 10**6
# Training angles lie on a grid at least this fine, and at least twice as fine as the fastest mode needs.
TRAIN_GRID, TEST_GRID = 2**18, 2**10


class Circle(Stream):
    r"""Inputs x = (cos θ, sin θ) and targets y a Fourier series with power-law coefficients, without noise.

    .. math:: y(\theta) = \sum_{k=1}^{k_{\max}} k^{-q} \cos k\theta, \qquad \theta \text{ uniform}

    θ is uniform on n equispaced angles, n a power of two, n >= 2^18 and n >= 4 k_max, where y is tabulated by FFT. On
    n equispaced angles the mean of cos kθ cos lθ is δ_kl/2 (k, l >= 1) as long as k + l < n: a product of modes aliases
    to the mean only when k + l or k − l is a multiple of n. So every second moment of the task is that of the
    continuous circle, and so is the test set's for any size above 2 k_max.

    Source: the circle task of Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised; β = (2q − 1)/(2
    q_φ).
    Arguments: q > 1/2, so that the power converges as k_max grows. k_max, 1 to 10^6, number of modes. B, samples a
    step, or inf: the population gradient, by the quadrature of the test set. test_size > 2 k_max, or None: the
    smallest power of two above 2 k_max, at least 1024.
    Raises: BadInput that names the field.
    Accuracy: y to rounding of its dtype; what k_max leaves out of the power is Σ_{k > k_max} k^-2q/2.
    Cost: memory n · 3 numbers; a batch is one look-up.
    """

    input_shape = (2,)
    outputs = 1
    input_power = 0.5
    population = True

    def __init__(self, q: float, k_max: int = 1000, B: float = 384, test_size: int | None = None) -> None:
        super().__init__(B)
        require(0.5 < q < math.inf, "data.q", q, "a number > 1/2")
        require(isinstance(k_max, int) and 1 <= k_max <= K_MAX, "data.k_max", k_max, f"an integer from 1 to {K_MAX}")
        quadrature = max(TEST_GRID, _power_of_two_above(2 * k_max)) if test_size is None else test_size
        require(
            isinstance(quadrature, int) and quadrature > 2 * k_max,
            "data.test_size",
            test_size,
            f"an integer > {2 * k_max} = 2 k_max",
        )
        self.q, self.k_max, self.test_size = q, k_max, quadrature

    def coefficients(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """k^-q for k = 1..k_max; the power of mode k in the loss is its square over 2."""
        return np.arange(1, self.k_max + 1, dtype=np.float64) ** -self.q

    def exponents(self, q_phi: float = 1.0) -> Exponents:
        """Capacity and source of this task for a network with activation ReLU^q_phi."""
        return circle_exponents(self.q, q_phi)

    def setup(self, stage: str | None = None) -> None:
        """Tabulate x and y on the device."""
        del stage
        self.table = self._on_grid(max(TRAIN_GRID, _power_of_two_above(4 * self.k_max - 1)))
        self.test_table = self._on_grid(self.test_size)

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Fresh angles; shapes (B, 2) and (B, 1). The same angles on every device."""
        if math.inf == self.B:
            return self.test_table[:, :2], self.test_table[:, 2:]
        index = torch.randint(len(self.table), (int(self.B),), generator=generator(seed, step))
        rows = self.table.index_select(0, index.to(self.device))
        return rows[:, :2], rows[:, 2:]

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """Equispaced angles with equal weights."""
        weights = torch.full((self.test_size,), 1 / self.test_size, dtype=self.dtype, device=self.device)
        return self.test_table[:, :2], self.test_table[:, 2:], weights

    def _on_grid(self, n: int) -> Tensor:
        """Rows (cos θ, sin θ, y) at θ = 2π j/n, shape (n, 3)."""
        theta = 2 * np.pi * np.arange(n) / n
        spectrum = np.zeros(n // 2 + 1)
        spectrum[1 : self.k_max + 1] = self.coefficients()
        y = np.fft.irfft(spectrum, n) * (n / 2)
        return torch.from_numpy(np.stack([np.cos(theta), np.sin(theta), y], axis=1)).to(self.device, self.dtype)


def _power_of_two_above(n: int) -> int:
    """The smallest power of two above n."""
    return 1 << n.bit_length()
