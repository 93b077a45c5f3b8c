"""Fourier series on the circle: the task on which a network's exponents are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.keyed import Int64, integers
from datamodules.stream import Stream
from featscale.errors import require
from featscale.spectra import Exponents, circle_exponents

K_MAX = 10**6
# Training angles lie on a grid at least this fine, and at least twice as fine as the fastest mode needs.
TRAIN_GRID, TEST_GRID = 2**18, 2**10
# Steps whose indices `batch` draws at once.
INDEX_BLOCK = 64


class Circle(Stream):
    r"""Inputs x = (cos θ, sin θ) and targets y a Fourier series with power-law coefficients, without noise.

    .. math:: y(\theta) = \sum_{k=1}^{k_{\max}} k^{-q} \cos k\theta, \qquad \theta \text{ uniform}

    θ is uniform on n equispaced angles, n a power of two, n >= 2^18 and n >= 4 k_max, where y is tabulated by FFT. On
    n equispaced angles the mean of cos kθ cos lθ is δ_kl/2 (k, l >= 1) as long as k + l < n: a product of modes aliases
    to the mean only when k + l or k − l is a multiple of n. So every second moment of the task is that of the
    continuous circle, and so is the test set's for any size above 2 k_max.

    Source: the circle task of Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, as summarised; β = (2q − 1)/(2
    q_φ).
    With `modes`, rows of the curve also hold the test loss of each octave of Fourier modes, columns band_0 (the mean),
    band_1, band_2, band_4, … (:meth:`decompose`), so that one sees which modes are learned when.

    Arguments: q > 1/2, so that the power converges as k_max grows. k_max, 1 to 10^6, number of modes. B, samples a
    step, or inf: the population gradient, by the quadrature of the test set. test_size > 2 k_max, or None: the
    smallest power of two above 2 k_max, at least 1024. modes, whether curves hold the loss of each octave too.
    Raises: BadInput that names the field.
    Accuracy: y to rounding of its dtype; what k_max leaves out of the power is Σ_{k > k_max} k^-2q/2.
    Cost: memory n · 3 numbers; a batch is one look-up.
    """

    input_shape = (2,)
    outputs = 1
    input_power = 0.5
    population = True

    def __init__(
        self, q: float, k_max: int = 1000, B: float = 384, test_size: int | None = None, modes: bool = False
    ) -> None:
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
        self.q, self.k_max, self.test_size, self.modes = q, k_max, quadrature, modes
        self._drawn: dict[int, tuple[int, Int64]] = {}

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
        self._drawn.clear()

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Fresh angles; shapes (B, 2) and (B, 1). The same angles on every device."""
        if math.inf == self.B:
            return self.test_table[:, :2], self.test_table[:, 2:]
        block, position = divmod(step, INDEX_BLOCK)
        if self._drawn.get(seed, (-1,))[0] != block:
            self._drawn[seed] = (block, self._indices([seed], block * INDEX_BLOCK, (block + 1) * INDEX_BLOCK)[:, 0])
        return self._at(self._drawn[seed][1][position])

    def batches(self, seeds: Sequence[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        """All batches of a range of steps by one draw and one look-up; equal to :meth:`batch`."""
        if math.inf == self.B:
            shape = (stop - start, len(seeds), self.test_size)
            return self.test_table[:, :2].expand(*shape, 2), self.test_table[:, 2:].expand(*shape, 1)
        return self._at(self._indices(seeds, start, stop))

    def _indices(self, seeds: Sequence[int], start: int, stop: int) -> Int64:
        """Grid points of each sample, shape (steps, seeds, B)."""
        return integers(np.asarray(seeds), np.arange(start, stop)[:, None], int(self.B), len(self.table))

    def _at(self, index: Int64) -> tuple[Tensor, Tensor]:
        """Inputs and targets at grid points, shapes (*index.shape, 2) and (*index.shape, 1)."""
        rows = self.table.index_select(0, torch.from_numpy(index.ravel()).to(self.device)).unflatten(0, index.shape)
        return rows[..., :2], rows[..., 2:]

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """Equispaced angles with equal weights."""
        weights = torch.full((self.test_size,), 1 / self.test_size, dtype=self.dtype, device=self.device)
        return self.test_table[:, :2], self.test_table[:, 2:], weights

    def decompose(self, error: Tensor) -> dict[str, Tensor]:
        r"""The test loss of each octave of Fourier modes, if `modes` is set; the octaves sum to the loss.

        .. math:: L_b = \sum_{k=b}^{2b-1} \tfrac12 |\hat e_k|^2, \qquad e(\theta) = \hat e_0 + \mathrm{Re} \sum_{k \ge 1} \hat e_k e^{ik\theta}

        Source: Parseval; derived, tests/datamodules/test_circle.py.
        Arguments: error f − y at the test angles, shape (…, test_size, 1).
        Returns: columns band_0 and band_b, b = 1, 2, 4, … up to test_size/2, each of shape (…).
        Accuracy: rounding, for an f without modes above test_size/2; those alias onto lower ones.
        """
        if not self.modes:
            return {}
        n = self.test_size
        power = 2 * (torch.fft.rfft(error[..., 0]).abs() / n).square()
        power[..., 0] /= 2
        if n % 2 == 0:
            power[..., -1] /= 2
        starts = [0] + [1 << j for j in range((n // 2).bit_length())]
        edges = zip(starts, [*starts[1:], n // 2 + 1], strict=True)
        return {f"band_{start}": power[..., start:stop].sum(-1) for start, stop in edges}

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
