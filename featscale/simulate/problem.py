r"""The projected-gradient two-layer linear model as data, and the random numbers of a run.

Model (Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858): f(x) = w·Aψ(x)/N on Gaussian features ψ ~ N(0, Λ), target y = w*·ψ + σε,

.. math:: w \leftarrow w + \eta A \hat\Sigma v, \qquad A \leftarrow A + \eta\gamma\, w\, (\hat\Sigma v)^\top [A(0)^\top A(0)/N], \qquad v = w^* - A^\top w / N

Every random number is a function of (seed, what it is for, index), so that a run can be cut anywhere and any seed can be run alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from featscale.errors import require
from featscale.spectra import PowerLaw, SpectralMeasure

MODE_BLOCK = 4096
Purpose = Literal["features", "batch", "noise"]
PURPOSES: tuple[Purpose, ...] = ("features", "batch", "noise")
# Below this fraction of the largest, an eigenvalue of the float64 Gram matrix is rounding and carries no power.
RANK_TOLERANCE = 1e-14


@dataclass(frozen=True)
class Problem:
    """One projected-gradient experiment.

    Arguments: task, the spectrum. N, width, 1 <= N <= M. eta, learning rate > 0; flow time is t = eta * step. gamma >= 0, richness.
    B, fresh samples a step, an integer >= 1 or inf (population gradient). sigma >= 0, label noise.
    Raises: BadInput that names the field otherwise, also when eta is past the stability bound at initialisation.
    """

    task: PowerLaw
    N: int
    eta: float
    gamma: float
    B: float = math.inf
    sigma: float = 0.0

    def __post_init__(self) -> None:
        M = self.task.M
        require(
            isinstance(self.N, (int, np.integer)) and 1 <= self.N <= M,
            "width",
            self.N,
            f"an integer from 1 to modes = {M}",
        )
        require(0 <= self.gamma < math.inf, "gamma", self.gamma, "a number >= 0")
        require(
            math.inf == self.B or (self.B >= 1 and int(self.B) == self.B), "batch", self.B, "an integer >= 1, or inf"
        )
        require(0 <= self.sigma < math.inf, "sigma", self.sigma, "a number >= 0")
        bound = stability_bound(self.task, self.B)
        require(0 < self.eta < bound, "eta", self.eta, f"a number > 0 and below the stability bound {bound:.4g}")


def stability_bound(task: PowerLaw, B: float = math.inf) -> float:
    r"""The largest learning rate at which the lazy infinite-width model is stable in mean square at initialisation.

    The second moments c_k of the residual obey c ← (1 − ηλ)² c + (η²/B)(λ² c + λ Σλc); they do not grow while

    .. math:: \frac{\eta}{B} \sum_k \frac{\lambda_k}{2 - \eta \lambda_k (1 + 1/B)} \le 1, \qquad \eta \lambda_1 (1 + 1/B) < 2

    Derived: the fixed point of Σλc; tests/simulate/test_problem.py checks the recursion on both sides of the bound. B = inf gives 2/λ_1.
    Cost: O(min(M, 10^4)) for each of 60 bisections.
    """
    measure = PowerLaw(task.alpha, 1.0, task.M).measure(None if task.M <= 10_000 else 2_000)
    # With beta = 1 the powers are λ_k / k, which is no use: the trace needs unit weights, and rho / (x / k) has them.
    counts = measure.rho * measure.x ** (-1 - 1 / task.alpha)
    top = 2 / (1 + 1 / B)
    if math.inf == B:
        return top
    low, high = 0.0, top
    for _ in range(60):
        eta = (low + high) / 2
        growth = eta / B * float(counts @ (measure.x / (2 - eta * measure.x * (1 + 1 / B))))
        low, high = (eta, high) if growth <= 1 else (low, eta)
    return low


def generator(seed: int, purpose: Purpose, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator that is a pure function of (seed, purpose, index) on one device type."""
    key = np.random.SeedSequence((seed, PURPOSES.index(purpose), index)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(key) >> 1)


def initial_features(seed: int, N: int, block: int, stop: int) -> Tensor:
    """Columns of A(0) for the modes of one block, entries N(0, 1), shape (N, min(MODE_BLOCK, stop − block MODE_BLOCK)), float64."""
    size = min(MODE_BLOCK, stop - block * MODE_BLOCK)
    return torch.randn(size, N, dtype=torch.float64, generator=generator(seed, "features", block)).T


@dataclass(frozen=True)
class Draw:
    r"""One draw of A(0) in the eigenbasis of its kernel S = A(0)ΛA(0)ᵀ/N.

    x, eigenvalues of S, largest first, shape (N,), float64. h0, A(0)Λw*/√N in the eigenbasis over √x, shape (N,): the part of the target's
    power in each mode is h0². atom, the power that no mode reaches.
    """

    x: Tensor
    h0: Tensor
    atom: float

    def measure(self) -> SpectralMeasure:
        """The spectral measure of this draw, for :func:`featscale.theory.flow.gradient_flow`: exact at finite width for this draw."""
        kept = self.x > 0
        return SpectralMeasure(self.x[kept].numpy(), (self.h0[kept] ** 2).numpy(), self.atom)


def draw(task: PowerLaw, N: int, seed: int, device: torch.device | str = "cpu") -> Draw:
    """Draw A(0) and diagonalise its kernel, streaming over modes: memory O(N² + 4096 N), whatever M.

    Cost: 2 N² M multiplications and one N × N eigendecomposition, in float64.
    """
    S = torch.zeros(N, N, dtype=torch.float64, device=device)
    b = torch.zeros(N, dtype=torch.float64, device=device)
    for block, (start, stop) in enumerate(task.blocks(MODE_BLOCK)):
        root = torch.from_numpy(np.sqrt(task.lambdas(start, stop))).to(device)
        features = initial_features(seed, N, block, task.M).to(device) * root
        S.addmm_(features, features.T)
        b += features @ (root * torch.from_numpy(task.w_star(start, stop)).to(device))
    x, V = torch.linalg.eigh(S / N)
    x, V = x.flip(0), V.flip(1)
    kept = x > RANK_TOLERANCE * x[0]
    x = torch.where(kept, x, 0.0)
    h0 = torch.where(kept, (V.T @ b) / math.sqrt(N) / torch.where(kept, x, 1.0).sqrt(), 0.0)
    power = task.measure().power
    return Draw(x.cpu(), h0.cpu(), max(0.0, power - float(h0.square().sum())))
