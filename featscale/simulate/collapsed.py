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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featscale.errors import require
from featscale.simulate.problem import PURPOSES, Draw, Problem, draw, generator

NOISE_BLOCK = 128
# Rank-two updates of Q are collected and applied this many at a time: Q is read at each step and rewritten once a block.
DELAY = 16


@dataclass
class State:
    """What the dynamics needs, nothing hidden.

    mu, shape (E, N). C = ‖w‖²/N, shape (E, 1). Q, shape (E, N, N), and pending, shape (E, 2 DELAY, N): rows p, û, p, û, … of the updates p ûᵀ + û pᵀ
    since the last multiple of DELAY, which Q still lacks; both absent when every gamma is 0.
    """

    mu: Tensor
    C: Tensor
    Q: Tensor | None = None
    pending: Tensor | None = None

    @staticmethod
    def initial(E: int, N: int, rich: bool, dtype: torch.dtype = torch.float64, device: Any = "cpu") -> State:
        """w = 0 and U = I, for E replicas of width N; `rich` if any gamma > 0."""
        mu, C = torch.zeros(E, N, dtype=dtype, device=device), torch.zeros(E, 1, dtype=dtype, device=device)
        if not rich:
            return State(mu, C)
        return State(mu, C, torch.eye(N, dtype=dtype, device=device).repeat(E, 1, 1), mu.new_zeros(E, 2 * DELAY, N))


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
        each = f"one for each of the {len(problems)} problems, at least one"
        require(len(problems) == len(seeds) > 0, "seeds", len(seeds), each)
        shared = {(p.task, p.N, p.eta, p.B, p.sigma) for p in problems}
        require(len(shared) == 1, "problems", len(shared), "replicas that differ in gamma and seed only")
        problem, self.seeds = problems[0], tuple(seeds)
        self.N, self.B, self.eta = problem.N, problem.B, problem.eta
        self.draws = list(draws) if draws is not None else _draws(problem, self.seeds, device)
        self.tensor: dict[str, Any] = {"dtype": dtype, "device": torch.device(device)}
        # On a CPU NumPy does the same steps with cheaper calls than torch, and its products of small matrices are faster.
        self.on_numpy = self.tensor["device"].type == "cpu"

        gamma = np.array([[p.gamma] for p in problems])
        atom = np.array([[d.atom] for d in self.draws])
        self.root = self._array(torch.stack([d.x.sqrt() for d in self.draws]))
        self.h0 = self._array(torch.stack([d.h0 for d in self.draws]))
        self.atom, self.gamma, self.eta_gamma = (
            self._array(torch.from_numpy(v)) for v in (atom, gamma, self.eta * gamma)
        )
        # The variance of the residual that no mode explains: what the width leaves out, and the label noise.
        self.blind = self._array(torch.from_numpy(atom + problem.sigma**2))
        self.state = State.initial(len(seeds), self.N, bool((gamma > 0).any()), dtype, device)
        self._noise_of: tuple[int, tuple[Any, ...]] | None = None

    def loss(self) -> Tensor:
        """Population loss, without label noise, shape (E,)."""
        with np.errstate(all="ignore"):
            h = self.h0 - self.root * self._array(self.state.mu)
            return torch.as_tensor((h * h).sum(1) + self.atom[:, 0])

    def K(self) -> Tensor:
        """Growth of the kernel 1 + γC, shape (E,)."""
        return torch.as_tensor((1 + self.gamma * self._array(self.state.C))[:, 0])

    @torch.no_grad()
    def advance(self, start: int, stop: int) -> None:
        """Steps start, …, stop − 1. Where a run is cut into calls changes no bit of it."""
        state = self.state
        mu, C = self._array(state.mu), self._array(state.C)
        rich = state.Q is not None and state.pending is not None
        spread = _Spread(self._array(state.Q), self._array(state.pending), self.eta_gamma) if rich else None
        with np.errstate(all="ignore"):
            for step in range(start, stop):
                u = self._gradient(mu, step)
                Qu = u if spread is None else spread(u, mu, C, step)
                mu_u, u_Qu = _dot(mu, u), _dot(u, Qu)
                mu = mu + self.eta * Qu + (self.eta_gamma * (C + self.eta * mu_u)) * u
                C = C + (2 * self.eta) * mu_u + self.eta**2 * u_Qu
        state.mu, state.C = torch.as_tensor(mu), torch.as_tensor(C)

    def _gradient(self, mu: Any, step: int) -> Any:
        """û, shape (E, N)."""
        h = self.h0 - self.root * mu
        if math.inf == self.B:
            return self.root * h
        z, phi, r0, mean, deviation = (part[step % NOISE_BLOCK] for part in self._noise(step // NOISE_BLOCK))
        L = _dot(h, h) + self.blind
        spread = deviation * L**0.5
        return (self.root * h) * (mean - spread * (_dot(h, z) + r0) / L) + phi * spread

    def _noise(self, block: int) -> tuple[Any, ...]:
        """Random numbers of a block of steps, first axis the step: functions of (seed, step).

        z, shape (E, N); φ = √x z; the part of r̃ that no mode explains, χ²_B/B and √χ²_B/B, each of shape (E, 1).
        """
        if self._noise_of is None or self._noise_of[0] != block:
            normal, chi2 = zip(*[self._random(seed, block) for seed in self.seeds], strict=True)
            stack = np.stack if self.on_numpy else torch.stack
            z, R = stack(normal, 1), stack(chi2, 1)
            z, z0 = z[:, :, :-1], z[:, :, -1:]
            self._noise_of = (block, (z, self.root * z, self.blind**0.5 * z0, R / self.B, R**0.5 / self.B))
        return self._noise_of[1]

    def _random(self, seed: int, block: int) -> tuple[Any, Any]:
        """Standard normals, shape (NOISE_BLOCK, N + 1), and χ²_B, shape (NOISE_BLOCK, 1), of one seed."""
        numpy, shape = np.random.default_rng((seed, PURPOSES.index("noise"), block)), (NOISE_BLOCK, self.N + 1)
        chi2 = numpy.chisquare(self.B, (NOISE_BLOCK, 1))
        if self.on_numpy:
            dtype = np.float32 if self.tensor["dtype"] == torch.float32 else np.float64
            return numpy.standard_normal(shape, dtype), chi2.astype(dtype)
        rng = generator(seed, "noise", block, self.tensor["device"])
        return torch.randn(shape, generator=rng, **self.tensor), torch.from_numpy(chi2).to(**self.tensor)

    def _array(self, tensor: Any) -> Any:
        """`tensor` as what the steps are made of: a NumPy view of it on a CPU, else a tensor."""
        tensor = tensor.detach().to(**self.tensor)
        return tensor.numpy() if self.on_numpy else tensor


class _Spread:
    """û ↦ Q û, and the update of Q by p ûᵀ + û pᵀ, p = ηγ (μ + ηγ C û / 2), in place and DELAY at a time."""

    def __init__(self, Q: Any, pending: Any, eta_gamma: Any) -> None:
        self.Q, self.pairs, self.eta_gamma = Q, pending, eta_gamma
        # The same rows with each pair swapped, so that Σ p (û·x) + û (p·x) is one product.
        _E, rows, _N = pending.shape
        order = np.arange(rows).reshape(-1, 2)[:, ::-1].reshape(-1)
        # Laid out as the pairs are, whatever E is: the order in which a product is summed depends on it.
        on_numpy = isinstance(pending, np.ndarray)
        self.swapped = (
            np.ascontiguousarray(pending[:, order]) if on_numpy else pending[:, torch.from_numpy(order.copy())]
        )

    def __call__(self, u: Any, mu: Any, C: Any, step: int) -> Any:
        i = 2 * (step % DELAY)
        column = u[:, :, None]
        Qu = (self.Q @ column)[:, :, 0]
        if i:
            Qu = Qu + ((self.pairs[:, :i] @ column).mT @ self.swapped[:, :i])[:, 0]
        p = self.eta_gamma * (mu + (0.5 * self.eta_gamma * C) * u)
        self.pairs[:, i], self.pairs[:, i + 1] = p, u
        self.swapped[:, i], self.swapped[:, i + 1] = u, p
        if i == 2 * (DELAY - 1):
            self.flush()
        return Qu

    def flush(self) -> None:
        """Apply the collected updates to Q."""
        if isinstance(self.Q, np.ndarray):
            self.Q += self.pairs.mT @ self.swapped
        else:
            self.Q.baddbmm_(self.pairs.mT, self.swapped)


def _dot(a: Any, b: Any) -> Any:
    """Σ_i a_i b_i along the last axis, kept: shape (E, 1)."""
    if isinstance(a, np.ndarray):
        return np.vecdot(a, b)[:, None]
    return torch.linalg.vecdot(a, b)[:, None]


def _draws(problem: Problem, seeds: Sequence[int], device: torch.device | str) -> list[Draw]:
    """One draw a distinct seed: replicas that share a seed share A(0)."""
    known = {seed: draw(problem.task, problem.N, seed, device) for seed in dict.fromkeys(seeds)}
    return [known[seed] for seed in seeds]
