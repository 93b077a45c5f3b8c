"""A module so small that its steps cost nothing, with an optimiser and noise that depends on (seed, step) alone; and jobs of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from featscale.errors import require
from featscale.runs.claims import claim
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.manifest import Planned
from featscale.training.march import Joined
from featscale.training.module import CurveModule, Row
from featscale.training.run import Job, Request, begin


class Source:
    """Data of which nothing is asked."""

    def place(self, device: Any, dtype: Any) -> None:
        self.dtype = dtype

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        pass


class Tiny(CurveModule):
    """Noisy gradient descent with momentum on ½ x², x a vector of `size`; breaks at step `breaks`, is infinite from step `bursts` on."""

    stackable: ClassVar[tuple[str, ...]] = ("seed", "model.breaks", "model.bursts", "optimizer.eta0")

    def __init__(
        self, size: int, breaks: int | None, bursts: int | None, data: Any, optimizer: float, **clock: Any
    ) -> None:
        require(optimizer > 0, "optimizer.eta0", optimizer, "a number > 0")
        dtype = clock.pop("dtype")
        super().__init__(eta=optimizer, **clock)
        self.breaks, self.bursts = breaks, bursts
        self.x = torch.nn.Parameter(torch.ones(size, dtype=dtype))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.x], lr=self.eta, momentum=0.9)

    def on_fit_start(self) -> None:
        self.sgd = self.optimizers(use_pl_optimizer=False)

    def shape(self) -> tuple[Any, ...]:
        return (*super().shape(), self.x.shape)

    def together(self) -> int:
        return 8

    @classmethod
    def join(cls, members: Sequence[Self]) -> Joined:
        return Stack(members)

    def noise(self, step: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((self.seeds[0], step)).standard_normal(len(self.x))).to(
            self.x.dtype
        )

    def prepare(self, step: int) -> None:
        if step == self.breaks:
            raise ArithmeticError(f"broken by design at {step}")
        gradient = self.x.detach() + 0.1 * self.noise(step)
        self.x.grad = gradient if step != self.bursts else gradient + math.inf

    def advance(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            self.prepare(step)
            self.sgd.step()

    def observe(self) -> list[Row]:
        return [{"seed": self.seeds[0], "loss": float(0.5 * self.x.detach().square().mean())}]

    def flops_per_step(self) -> float:
        return 6.0 * len(self.x)


class Stack:
    """Step by step instead of member by member, and it counts its calls."""

    calls = 0

    def __init__(self, members: Sequence[Tiny]) -> None:
        self.members = members

    def advance(self, start: int, stop: int) -> None:
        type(self).calls += 1
        for step in range(start, stop):
            for member in self.members:
                member.prepare(step)
                member.sgd.step()


def planned(name: str = "tiny", seed: int = 0, steps: int = 200, **changes: Any) -> Planned:
    """A run of the module, as the manifest has it; `changes` with a dotted name go into a group (model__size)."""
    science: dict[str, Any] = {
        "model": {"size": 3, "breaks": None, "bursts": None},
        "data": {},
        "parameterization": {},
        "optimizer": {"eta0": 0.1},
        "loss": {},
        "seed": seed,
        "seeds": 1,
        "steps": steps,
        "rows_per_decade": 8,
        "precision": "float64",
    }
    trainer = {
        "accelerator": "cpu",
        "devices": 1,
        "threads": None,
        "chunk": 100,
        "checkpoint_seconds": 60,
        "progress": False,
    }
    for key, value in changes.items():
        group, _, entry = key.partition("__")
        target = trainer if group == "trainer" else science[group]
        target[entry] = value
    logger = {"mode": "disabled", "project": "featscale"}
    return Planned({"name": name, **science, "trainer": trainer, "logger": logger, "retry_failed": False}, science)


def build(group: dict[str, Any]) -> Any:
    """The part of a run that a group of :func:`planned` describes."""
    if "size" in group:
        # The other parts are of no use to this module.
        return lambda parameterization, loss, **parts: functools.partial(Tiny, **group)(**parts)
    return group["eta0"] if "eta0" in group else Source()


def job_of(root: Path, run: Planned, claims: ExitStack) -> Job:
    """A claimed run of the module, in `root`."""
    request = Request(run.config, run.science)
    directory = RunDirectory(run_path(root, run.config["name"], config_hash(run.science)))
    held = claims.enter_context(claim(directory))
    begin(directory, request)
    parts = {name: build(run.config[name]) for name in ("parameterization", "optimizer", "loss")}
    return Job(directory, request, held, request.module(build(run.config["model"]), data=Source(), **parts), Source())
