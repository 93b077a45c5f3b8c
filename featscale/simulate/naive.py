"""The definition of the model, with A stored as N × M and every batch drawn: slow, readable, and what the fast form is tested against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featscale.simulate.problem import MODE_BLOCK, Problem, generator, initial_features


@dataclass
class Naive:
    """State of one seed: readout w, shape (N,); features A and A0, shape (N, M); float64 on the CPU."""

    problem: Problem
    seed: int

    def __post_init__(self) -> None:
        task, N = self.problem.task, self.problem.N
        blocks = range(-(-task.M // MODE_BLOCK))
        self.A0 = torch.cat([initial_features(self.seed, N, block, task.M) for block in blocks], dim=1)
        self.A, self.w = self.A0.clone(), torch.zeros(N, dtype=torch.float64)
        self.lambdas, self.w_star = torch.from_numpy(task.lambdas()), torch.from_numpy(task.w_star())

    def advance(self, start: int, stop: int) -> None:
        """Steps start, …, stop − 1."""
        for step in range(start, stop):
            self.step(step)

    def step(self, step: int) -> None:
        """One update of w and A, both from their old values."""
        N, eta, gamma = self.problem.N, self.problem.eta, self.problem.gamma
        g = self.gradient(step)
        Ag = self.A @ g
        self.A = self.A + eta * gamma * torch.outer(self.w, (g @ self.A0.T) @ self.A0 / N)
        self.w = self.w + eta * Ag

    def gradient(self, step: int) -> Tensor:
        """Σ̂ v + Ψᵀε/B, shape (M,); Λ v at B = inf."""
        v = self.residual()
        if float("inf") == self.problem.B:
            return self.lambdas * v
        B, M = int(self.problem.B), self.lambdas.numel()
        rng = generator(self.seed, "batch", step)
        psi = torch.randn(B, M, dtype=torch.float64, generator=rng) * self.lambdas.sqrt()
        noise = self.problem.sigma * torch.randn(B, dtype=torch.float64, generator=rng)
        return psi.T @ (psi @ v + noise) / B

    def residual(self) -> Tensor:
        """v = w* − Aᵀw/N, shape (M,)."""
        return self.w_star - self.A.T @ self.w / self.problem.N

    def loss(self) -> float:
        """Population loss vᵀΛv, without label noise."""
        return float(self.lambdas @ self.residual().square())

    def K(self) -> float:
        """Growth of the kernel, 1 + γ‖w‖²/N."""
        return 1 + self.problem.gamma * float(self.w.square().mean())
