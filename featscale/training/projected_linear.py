"""The projected-gradient model as a Lightning module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch

from featscale.errors import require
from featscale.simulate.collapsed import Collapsed, State
from featscale.simulate.problem import Problem
from featscale.training.loss import MSE, Loss
from featscale.training.march import Joined
from featscale.training.module import CurveModule, Row

# The most replicas that are stepped together, and the entries that all their Q may have.
STACKED, CACHED = 64, 2**18


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

    # Replicas of one problem may differ in their seed and, as long as all are lazy or all rich, in their richness.
    stackable: ClassVar[tuple[str, ...]] = ("seed", "parameterization.gamma")

    def shape(self) -> tuple[Any, ...]:
        """All of the problem but its richness, and the precision."""
        p = self.problem
        return (*super().shape(), p.task, p.N, p.eta, p.B, p.sigma, p.gamma > 0, self.run_dtype)

    def together(self) -> int:
        """As many as STACKED when lazy, or as keep all Q in a cache when rich; 1 on a GPU, where it was not measured.

        Measured on one core (docs/findings/2026-11-25-sweeps-core.md): rich, N = 64, 16 at once are 5 times as fast, N = 256, 4 at once 1.5 times.
        """
        if self.device.type != "cpu":
            return 1
        replicas = CACHED // self.problem.N**2 if self.problem.gamma > 0 else STACKED
        return max(1, min(STACKED, replicas) // len(self.seeds))

    @classmethod
    def join(cls, members: Sequence[Self]) -> Joined:
        """One simulation of all replicas; a CPU works out each replica's products by itself, so that no bit changes."""
        return _Stacked(members)

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


class _Stacked:
    """The replicas of several members as one simulation, whose rows the members see."""

    def __init__(self, members: Sequence[ProjectedLinear]) -> None:
        self.members = members
        problems = [member.problem for member in members for _ in member.seeds]
        seeds = [seed for member in members for seed in member.seeds]
        draws = [draw for member in members for draw in member.simulation.draws]
        self.simulation = Collapsed(problems, seeds, members[0].run_dtype, members[0].device, draws)
        states = [vars(member.simulation.state) for member in members]
        whole = {
            name: torch.cat([state[name] for state in states]) for name in states[0] if states[0][name] is not None
        }
        self.simulation.state = State(**whole)
        self._share()

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1 of all members."""
        self.simulation.advance(start, stop)
        self._share()

    def _share(self) -> None:
        """Give each member its rows of the state, as views: Q is changed in place."""
        at = 0
        for member in self.members:
            rows = slice(at, at := at + len(member.seeds))
            for name, value in vars(self.simulation.state).items():
                mine = None if value is None else value[rows]
                setattr(member.simulation.state, name, mine)
                if mine is not None:
                    setattr(member, name, mine)
