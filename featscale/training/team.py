"""The processes that train one run together (DDP): who they are, and what they tell each other, none of it pickled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment
from torch import Tensor

from featscale.errors import BadInput, require
from featscale.training.place import Place

# Longest wait for the others, in seconds: the first batch of one may take as long as its data.
WAIT = 1800.0
# Where tasks of Slurm meet: below the ports that the kernel gives out by itself.
PORTS = range(15_000, 25_000)


class TeamBroken(RuntimeError):
    """Another process of the team is gone; the run goes on from its checkpoint when the team is started again."""


class Team:
    """The collective of all processes; a context manager.

    Arguments: place, of this process.
    Raises: BadInput where the others cannot be found.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        # Whether a process was asked to stop: known to all after the same step.
        self.stopping = False
        self.asked: Callable[[], bool] = lambda: False

    def __enter__(self) -> Self:
        """Meet the others: over gloo on CPUs, NCCL on GPUs, of which each process takes one."""
        if "RANK" not in os.environ:
            os.environ.update(meeting(os.environ) | os.environ)
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus:
            torch.cuda.set_device(self.place.local % gpus)
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                rank=self.place.rank,
                world_size=self.place.processes,
                timeout=timedelta(seconds=WAIT),
            )
        except (ValueError, RuntimeError) as error:
            raise BadInput("MASTER_ADDR", os.environ.get("MASTER_ADDR"), f"a process that leads ({error})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Part."""
        del error, trace
        if kind is None:
            dist.destroy_process_group()

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace the gradients by their means over all processes, and learn whether any was asked to stop.

        Every process gets the same bits. Cost: one all-reduce of all gradients and one number.
        """
        flag = gradients[0].new_full((1,), float(self.asked()))
        flat = torch.cat([flag, *(gradient.flatten() for gradient in gradients)])
        with _collective():
            dist.all_reduce(flat)
        self.stopping = self.stopping or bool(flat[0] > 0)
        parts = (flat[1:] / self.place.processes).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, text: str = "") -> str:
        """The leader's text."""
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor([len(data)])
        with _collective():
            dist.broadcast(length, 0)
            data = data if self.place.leads else torch.empty(int(length), dtype=torch.uint8)
            if int(length):
                dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()

    def agree(self, step: int) -> None:
        """Raise :class:`TeamBroken` unless all processes stand at this step."""
        steps = torch.tensor([step, -step])
        with _collective():
            dist.all_reduce(steps, dist.ReduceOp.MAX)
        if int(steps[0]) != -int(steps[1]):
            raise TeamBroken(f"processes stand at steps {-int(steps[1])} to {int(steps[0])}; do they share the folder?")


def meeting(environment: Mapping[str, str]) -> dict[str, str]:
    """Where the tasks of a Slurm step meet, as torchrun would have told torch: the step's first node, and a port that is the step's own.

    Lightning's own SLURMEnvironment refuses a job of `--ntasks`; only its reading of node lists is of use here.

    >>> meeting({"SLURM_STEP_NODELIST": "gpu[07-09,12]", "SLURM_JOB_ID": "70012", "SLURM_STEP_ID": "1"})
    {'MASTER_ADDR': 'gpu07', 'MASTER_PORT': '16009'}
    """
    nodes = environment.get("SLURM_STEP_NODELIST", "127.0.0.1")
    job, step = (int(environment.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = PORTS[0] + (job + 997 * step) % len(PORTS)
    return {"MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(nodes), "MASTER_PORT": str(port)}


class Sliced:
    """A source of data of which each process sees its slice of every batch; everything else is the source's.

    Raises: BadInput for a batch that cannot be sliced evenly.
    """

    def __init__(self, data: Any, place: Place) -> None:
        B, n = data.B, place.processes
        require(
            float("inf") != B and B % n == 0,
            "data.B",
            B,
            f"a multiple of the {n} processes, each of which takes a part",
        )
        self._data, self._place = data, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """This process's part of the batch, which is made whole, as a function of (seed, step)."""
        x, y = self._data.batch(seed, step)
        part = len(x) // self._place.processes
        mine = slice(self._place.rank * part, (self._place.rank + 1) * part)
        return x[mine], y[mine]


@contextmanager
def _collective() -> Iterator[None]:
    """Errors of the transport as :class:`TeamBroken`."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise TeamBroken(" ".join(str(error).split())[:300]) from error
