r"""The model with nothing of size N × M after initialisation, and nothing of size B at all: O(N²) a step, batched over seeds and γ.

A(t) = U(t)A(0) always, and the loss sees U only through μ = Uᵀw/√N, Q = UᵀU and C = ‖w‖²/N. In the eigenbasis of S = A(0)ΛA(0)ᵀ/N
(eigenvalues x) with û = A(0)Σ̂v/√N,

.. math::
    \mu &\leftarrow \mu + \eta Q \hat u + \eta\gamma (C + \eta\, \mu\cdot\hat u)\, \hat u \\
    Q &\leftarrow Q + \eta\gamma (\mu \hat u^\top + \hat u \mu^\top) + (\eta\gamma)^2 C\, \hat u \hat u^\top \\
    C &\leftarrow C + 2\eta\, \mu\cdot\hat u + \eta^2\, \hat u^\top Q \hat u

all from the old values. With h = h0 − √x μ the population gradient is g = √x h and the loss L = h·h + atom.

A batch of B samples enters through û = Σ_i φ_i r_i / B, φ_i ~ N(0, diag x), r_i the residual with label noise, jointly Gaussian: r_i has variance
L' = L + σ² and Cov(φ, r) = g. Given r, Σ φ_i r_i is Gaussian with mean g R/L' and covariance R (diag x − g gᵀ/L'), R = Σ r_i² ~ L' χ²_B. So

.. math:: \hat u = \frac{1}{B} \left[ \frac{R}{L'} g + \sqrt{R}\, \Big(\tilde\phi - \frac{\tilde r}{L'} g\Big) \right], \qquad
    \tilde\phi = \sqrt{x}\, z, \quad \tilde r = h \cdot z + \sqrt{\mathrm{atom} + \sigma^2}\; z_0

with one standard normal (z, z_0) a step has exactly the law of the sum over the batch. Derived; tests/simulate/test_collapsed.py checks equality with
:mod:`featscale.simulate.naive` at B = inf, the moments of û, and loss curves at finite B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featscale.errors import require
from featscale.simulate.problem import Draw, Problem, draw, generator

NOISE_BLOCK = 128
# From this width on, updates of Q are collected and applied together: the matrix is then read, not rewritten, at each step.
DELAY_WIDTH, DELAY = 192, 16


@dataclass
class State:
    """What the dynamics needs, nothing hidden.

    mu, shape (E, N). C = ‖w‖²/N, shape (E, 1). Q, shape (E, N, N), absent when every gamma is 0. pending, shape (E, 2 DELAY, N): pairs (p, û) of the
    updates p ûᵀ + û pᵀ that Q still lacks, those of the steps since the last multiple of DELAY; absent at small width.
    """

    mu: Tensor
    C: Tensor
    Q: Tensor | None = None
    pending: Tensor | None = None

    @staticmethod
    def initial(
        E: int, N: int, rich: bool, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> State:
        """w = 0 and U = I, for E replicas of width N; `rich` if any gamma > 0."""
        mu, C = torch.zeros(E, N, dtype=dtype, device=device), torch.zeros(E, 1, dtype=dtype, device=device)
        if not rich:
            return State(mu, C)
        Q = torch.eye(N, dtype=dtype, device=device).repeat(E, 1, 1)
        return State(mu, C, Q, mu.new_zeros(E, 2 * DELAY, N) if N >= DELAY_WIDTH else None)


class Collapsed:
    """E replicas of the model, each with its own seed and richness, stepped together.

    Arguments: problems, one a replica, equal in everything but gamma. seeds, one a replica. dtype of the dynamics (the draw of A(0) is
    always diagonalised in float64). device, any torch device. draws, if the caller already has them.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        draws: Sequence[Draw] | None = None,
    ) -> None:
        require(
            len(problems) == len(seeds) > 0,
            "seeds",
            len(seeds),
            f"one for each of the {len(problems)} problems, at least one",
        )
        shared = {(p.task, p.N, p.eta, p.B, p.sigma) for p in problems}
        require(len(shared) == 1, "problems", len(shared), "replicas that differ in gamma and seed only")
        problem, self.seeds = problems[0], tuple(seeds)
        self.N, self.B, self.eta = problem.N, problem.B, problem.eta
        self.draws = list(draws) if draws is not None else _draws(problem, self.seeds, device)

        def rows(values: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(values)).to(dtype).to(device)

        self.root = rows([d.x.sqrt() for d in self.draws])
        self.h0 = rows([d.h0 for d in self.draws])
        self.atom = rows([torch.tensor([d.atom], dtype=torch.float64) for d in self.draws])
        self.blind = (self.atom + problem.sigma**2).sqrt()
        self.gamma = rows([torch.tensor([p.gamma], dtype=torch.float64) for p in problems])
        self.eta_gamma = self.eta * self.gamma
        self.state = State.initial(len(seeds), self.N, bool((self.gamma > 0).any()), dtype, device)
        self._noise: tuple[int, Tensor, Tensor] | None = None

    def loss(self) -> Tensor:
        """Population loss, without label noise, shape (E,)."""
        h = self.h0 - self.root * self.state.mu
        return h.square().sum(1) + self.atom[:, 0]

    def K(self) -> Tensor:
        """Growth of the kernel 1 + γC, shape (E,)."""
        return (1 + self.gamma * self.state.C)[:, 0]

    @torch.no_grad()
    def advance(self, start: int, stop: int) -> None:
        """Steps start, …, stop − 1. Where a run is cut into calls changes no bit of it."""
        for step in range(start, stop):
            u = self._gradient(step)
            self._move(u, self._spread(u, step))

    def _gradient(self, step: int) -> Tensor:
        """û, shape (E, N)."""
        h = torch.addcmul(self.h0, self.root, self.state.mu, value=-1)
        if math.inf == self.B:
            return self.root * h
        z, chi2 = self._draw_noise(step)
        L = torch.linalg.vecdot(h, h)[:, None] + self.blind.square()
        r = torch.linalg.vecdot(h, z[:, :-1])[:, None] + self.blind * z[:, -1:]
        spread = (chi2 * L).sqrt()
        return self.root * (h * ((chi2 - spread * r / L) / self.B) + z[:, :-1] * (spread / self.B))

    def _spread(self, u: Tensor, step: int) -> Tensor:
        """Q û, shape (E, N); then Q takes its update, at once or (at large width) into the pending pairs."""
        state = self.state
        if state.Q is None:
            return u
        Qu = torch.bmm(state.Q, u[:, :, None])[:, :, 0]
        p = self.eta_gamma * (state.mu + (0.5 * self.eta_gamma * state.C) * u)
        pair = torch.stack([p, u], dim=1)
        if state.pending is None:
            state.Q.baddbmm_(pair.mT, pair.flip(1))
            return Qu
        i = step % DELAY
        if i:
            # Rows come in pairs (p, u) and stand for p uᵀ + u pᵀ: the two coefficients of each pair are swapped.
            rows = state.pending[:, : 2 * i]
            coefficients = torch.bmm(rows, u[:, :, None]).view(-1, i, 2).flip(2).reshape(-1, 1, 2 * i)
            Qu = Qu + torch.bmm(coefficients, rows)[:, 0]
        state.pending[:, 2 * i : 2 * i + 2] = pair
        if i == DELAY - 1:
            swapped = state.pending.view(-1, DELAY, 2, self.N).flip(2).reshape_as(state.pending)
            state.Q.baddbmm_(state.pending.mT, swapped)
        return Qu

    def _move(self, u: Tensor, Qu: Tensor) -> None:
        """μ and C take their update, given û and Q û."""
        state, eta = self.state, self.eta
        mu_u = torch.linalg.vecdot(state.mu, u)[:, None]
        u_Qu = torch.linalg.vecdot(u, Qu)[:, None]
        state.mu = torch.add(state.mu, Qu, alpha=eta).addcmul_(u, self.eta_gamma * (state.C + eta * mu_u))
        state.C = state.C + (2 * eta) * mu_u + eta**2 * u_Qu

    def _draw_noise(self, step: int) -> tuple[Tensor, Tensor]:
        """(z, z_0), shape (E, N + 1), and χ²_B, shape (E, 1), of a step: functions of (seed, step)."""
        block, offset = divmod(step, NOISE_BLOCK)
        if self._noise is None or self._noise[0] != block:
            self._noise = (block, *self._noise_block(block))
        return self._noise[1][offset], self._noise[2][offset]

    def _noise_block(self, block: int) -> tuple[Tensor, Tensor]:
        like, kind = self.h0, {"dtype": self.h0.dtype, "device": self.h0.device}
        normal = [
            torch.randn(NOISE_BLOCK, self.N + 1, generator=generator(seed, "noise", block, like.device), **kind)
            for seed in self.seeds
        ]
        chi2 = [np.random.default_rng((seed, 3, block)).chisquare(self.B, NOISE_BLOCK) for seed in self.seeds]
        return torch.stack(normal, dim=1), torch.from_numpy(np.stack(chi2, axis=1)).to(**kind)[:, :, None]


def _draws(problem: Problem, seeds: Sequence[int], device: torch.device | str) -> list[Draw]:
    """One draw a distinct seed: replicas that share a seed share A(0)."""
    known = {seed: draw(problem.task, problem.N, seed, device) for seed in dict.fromkeys(seeds)}
    return [known[seed] for seed in seeds]
