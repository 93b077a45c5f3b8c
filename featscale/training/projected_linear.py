"""The projected-gradient model as a Lightning module."""

from __future__ import annotations

from typing import Any

import torch

from featscale.errors import require
from featscale.simulate.collapsed import Collapsed, State
from featscale.simulate.problem import Problem
from featscale.training.loss import MSE, Loss
from featscale.training.module import CurveModule, Row


class ProjectedLinear(CurveModule):
    """E replicas of the projected-gradient two-layer linear network, in their collapsed form (:mod:`featscale.simulate.collapsed`).

    Arguments: N, width. data, a source with a power-law `task`, batch size `B` and label noise `sigma`. parameterization, with `gamma`.
    optimizer, SGD with its `eta0`. dtype of the dynamics. loss, None or squared error. The rest as in :class:`CurveModule`.
    Raises: BadInput that names the field, before anything is drawn.
    """

    def __init__(
        self,
        N: int,
        data: Any,
        parameterization: Any,
        optimizer: Any,
        dtype: torch.dtype,
        loss: Loss | None = None,
        **clock: Any,
    ) -> None:
        name = MSE().name if loss is None else loss.name
        require(name == MSE().name, "loss", name, "mse: the solvable model has squared error by definition")
        require(optimizer.name == "sgd", "optimizer", optimizer.name, "sgd for the solvable model")
        super().__init__(eta=optimizer.eta0, **clock)
        self.problem = Problem(data.task, N, optimizer.eta0, parameterization.gamma, data.B, data.sigma)
        self.run_dtype = dtype
        # The state lives in buffers, so that Lightning moves and saves it; the features come again from the seeds.
        state = State.initial(len(self.seeds), N, self.problem.gamma > 0, dtype)
        for name, value in vars(state).items():
            self.register_buffer(name, value)

    def on_fit_start(self) -> None:
        """Draw and diagonalise the initial features, on the device of the run."""
        problems = [self.problem] * len(self.seeds)
        self.simulation = Collapsed(problems, self.seeds, self.run_dtype, self.device)
        self.simulation.state = State(self.mu, self.C, self.Q, self.pending)

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1 of all seeds."""
        self.simulation.advance(start, stop)
        self.mu, self.C = self.simulation.state.mu, self.simulation.state.C

    def observe(self) -> list[Row]:
        """Population loss and K of each seed."""
        loss, K = self.simulation.loss().tolist(), self.simulation.K().tolist()
        return [{"seed": seed, "loss": loss[i], "K": K[i]} for i, seed in enumerate(self.seeds)]

    def flops_per_step(self) -> float:
        """6 N² a seed when rich (Q û and the rank-two update of Q), 20 N for vectors; random numbers are left out."""
        N = self.problem.N
        return len(self.seeds) * (6.0 * N**2 * (self.problem.gamma > 0) + 20.0 * N)
