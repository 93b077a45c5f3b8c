"""Claimed runs trained without Lightning's loop: one, or several of one shape side by side.

The loop of Lightning costs tens of milliseconds to set up, and knows one module; here a run costs what its steps cost, and a group advances as its
modules' `join` says. Curves and records are those of :func:`featscale.training.run.execute`; tests/training/test_group.py compares them bit
for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from featscale.runs.record import Outcome
from featscale.training.checkpoint import CannotSave
from featscale.training.march import March
from featscale.training.module import CurveModule
from featscale.training.preemption import Preemption
from featscale.training.run import Job, ending, failure
from featscale.training.watch import Watch

log = logging.getLogger(__name__)

Report = Callable[[Sequence[Job]], None]
Ended = Callable[[Job, Outcome], None]


def quiet(jobs: Sequence[Job]) -> None:
    """Report nothing."""
    del jobs


def unheard(job: Job, status: Outcome) -> None:
    """Tell nobody how a run ended."""
    del job, status


@dataclass
class Loop:
    """All that a :class:`featscale.training.module.CurveModule` asks of the trainer around it."""

    optimizers: list[torch.optim.Optimizer]
    should_stop: bool = False


class TogetherFailed(Exception):
    """Training several runs together raised an error that may belong to any of them; train each alone, from its checkpoint."""


def ready(job: Job) -> None:
    """Set the module of `job` up, and take the optimisers' part of its checkpoint."""
    job.loop = set_up(job.module, job.data, job.request.device)
    job.restore_optimizers()


def set_up(module: CurveModule, data: Any, device: str) -> Loop:
    """Put a module on its device and give it its optimisers, in the order in which Lightning's Trainer does.

    Returns: what stands for the trainer; keep it, for a module has only a weak reference to it.
    """
    data.setup("fit")
    module.to(device)
    made: Any = module.configure_optimizers()
    loop = Loop([] if made is None else list(made) if isinstance(made, (list, tuple)) else [made])
    module.trainer = loop
    module.on_fit_start()
    module.train()
    return loop


def train(jobs: Sequence[Job], preemption: Preemption, report: Report = quiet, ended: Ended = unheard) -> None:
    """Train claimed runs, those of one shape at one step together, and record them.

    Arguments: jobs, of which :func:`ready` was called. report, called with the jobs of a group every few seconds. ended, called with a job and
    how it ended once its record is written.
    Raises: Preempted if asked to stop, when all is saved and what was finished is recorded; CannotSave if a checkpoint cannot be written;
    TogetherFailed, with nothing recorded of the group, if training several together raises.
    """
    for group in groups(jobs):
        _train_together(group, preemption, report, ended)


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in groups that can be trained together: equal shape, equal step."""
    found: dict[Any, list[Job]] = {}
    for job in jobs:
        module = job.module
        key = (module.shape(), module.step) if module.stackable else job.hash
        found.setdefault(key, []).append(job)
    return list(found.values())


def _train_together(jobs: list[Job], preemption: Preemption, report: Report, ended: Ended) -> None:
    began = time.monotonic()
    for job in jobs:
        job.share, job.clock = len(jobs), began
        if len(jobs) > 1:
            job.notes["group_members"] = len(jobs)
    options = jobs[0].request.config["trainer"]
    watch = Watch(jobs, options["checkpoint_seconds"], preemption, report)
    modules = [job.module for job in jobs]
    try:
        March(modules, options["chunk"], watch).to(modules[0].T)
    except CannotSave:
        raise
    except Exception as error:
        if len(jobs) > 1:
            log.warning("%d runs together failed (%s: %s); each alone", len(jobs), type(error).__name__, error)
            raise TogetherFailed from error
        log.exception("run %s failed", jobs[0].directory.path)
        ended(jobs[0], jobs[0].finish(*failure(modules[0], error)))
        return
    ended_at = time.monotonic()
    for job in jobs:
        job.stopped = ended_at
        if job.module.over:
            ended(job, job.finish(*ending(job.module)))
    watch.leave()
