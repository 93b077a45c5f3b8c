"""Where a process stands among those that train one run together (DDP); light, for those who only ask."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from featscale.errors import BadInput

HOW = "torchrun --nproc-per-node 2 -m featscale.cli.app worker DIR --ddp"
FILL = "train.py -m … launcher=none"


@dataclass(frozen=True)
class Place:
    """Where a process stands: rank of processes, and its number `local` on its machine."""

    rank: int
    processes: int
    local: int

    @classmethod
    def found(cls, environment: Mapping[str, str]) -> Place | None:
        """As torchrun or the tasks of srun have it; None for a process of its own."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "SLURM_STEP_NUM_TASKS" in environment and "RANK" not in environment:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        if not all(environment.get(name, "").isdecimal() for name in names):
            return None
        place = cls(*(int(environment[name]) for name in names))
        return place if place.processes > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this process claims runs and writes their files."""
        return self.rank == 0


def alone(what: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to do `what` in each of several processes. Raises: BadInput that says what to do instead."""
    place = Place.found(environment)
    if place is not None and "RANK" in environment:
        raise BadInput(
            "WORLD_SIZE",
            place.processes,
            f"{what} is for one process; fill the manifest with `{FILL}`, then train each run on several with `{HOW}`",
        )
