"""A worker: takes the runs of manifests one group at a time, trains them, and goes on until nothing is left for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from featscale.errors import BadInput
from featscale.runs.claims import RunBusy, claim
from featscale.runs.directory import RECORD, Decision, RunDirectory, should_run
from featscale.runs.identity import config_hash
from featscale.runs.manifest import Manifest, Planned
from featscale.training.group import TogetherFailed, ready, train
from featscale.training.module import CurveModule
from featscale.training.orders import PARTS, Event, Policy
from featscale.training.preemption import Preemption
from featscale.training.run import Job, Request, begin, failure

log = logging.getLogger(__name__)

# Processes in a row that may die with a run in their hands, saving nothing, before the run is recorded as failed: one that takes all memory
# must not keep a sweep from its end.
MAX_CRASHES = 10
# The parts of a module besides its model and its data.
OTHERS = tuple(group for group in PARTS if group not in ("model", "data"))

# From a group of the resolved configuration (model: a function that makes the module; data, parameterization, optimizer) the part it describes.
Build = Callable[[Mapping[str, Any]], Any]


def silent(event: Event) -> None:
    """Tell nobody."""
    del event


class Worker:
    """Trains the runs of `sweeps` that nobody else trains, until none is left to take.

    Each run is claimed by the kernel's lock on its folder (:func:`featscale.runs.claims.claim`), so that any number of workers, on any machines
    that share the folder, may work on the same sweeps. Runs whose modules say so are trained together; their records are those of single
    runs. Bad input in a run, or a damaged record, is told, and the rest goes on.

    Arguments: sweeps, whose manifests are read once. build, which makes the parts of a run. preemption, whose signals stop the work.
    tell, called with each :class:`Event`.
    """

    def __init__(
        self,
        sweeps: Iterable[Manifest],
        build: Build,
        preemption: Preemption,
        policy: Policy | None = None,
        tell: Callable[[Event], None] = silent,
    ) -> None:
        self.preemption, self.policy, self.tell = preemption, policy or Policy(), tell
        self.parts = Parts(build)
        only = self.policy.only
        asked = [(sweep, run) for sweep in sweeps for run in sweep.read() if only is None or run.hash in only]
        runs = [(sweep.directory(run), run) for sweep, run in asked]
        self.waiting = {directory.path: (directory, run) for directory, run in runs}
        self._keys: dict[tuple[str, tuple[str, ...]], str] = {}

    def run(self) -> None:
        """Work until nothing is left.

        Raises: Preempted, with everything saved; CannotSave, or another OSError, where a folder cannot be written.
        """
        while self.waiting:
            self.preemption.check("between two runs")
            with ExitStack() as claims:
                first = self._take(next(iter(self.waiting)), claims)
                if first is not None and self._ready(first):
                    self._train([first, *filter(self._ready, self._mates(first, claims))])

    def _take(self, path: Path, claims: ExitStack) -> Job | None:
        """Build a run and claim it; None if there is nothing to train or somebody else does."""
        directory, run = self.waiting.pop(path)
        try:
            decision = should_run(directory, self.policy.retry_failed)
            if decision.trains:
                request = Request({**run.config, "retry_failed": self.policy.retry_failed}, run.science, run.overrides)
                module, data = self.parts.module(request)
                held = claims.enter_context(claim(directory))
                decision = begin(directory, request)
            if decision.trains:
                return self._sound(Job(directory, request, held, module, data))
            self._skip(directory, decision)
        except RunBusy:
            self._skip(directory, Decision.BUSY)
        except BadInput as error:
            self._skip(directory, "refused", str(error))
        return None

    def _sound(self, job: Job) -> Job | None:
        """The job; None, and a record, if it killed every process that had it in its hands."""
        if (crashes := job.held.crashes) < MAX_CRASHES:
            return job
        cause = f"{crashes} processes in a row died with this run in their hands and saved nothing (out of memory?)"
        self._ended(job, job.finish("failed", cause))
        return None

    def _mates(self, first: Job, claims: ExitStack) -> list[Job]:
        """Claim the runs that can be trained together with `first`, up to this worker's part of them."""
        kind = first.module
        if not kind.stackable or kind.together() <= 1:
            return []
        key = self._key(first.request, kind.stackable)
        fitting = [path for path, (_, run) in self.waiting.items() if self._key(run, kind.stackable) == key]
        part = -(-(len(fitting) + 1) // self.policy.share)
        mates: list[Job] = []
        for path in fitting:
            if 1 + len(mates) >= min(kind.together(), self.policy.most, part):
                break
            if (job := self._take(path, claims)) is not None:
                mates.append(job)
        return mates

    def _key(self, run: Planned | Request, stackable: tuple[str, ...]) -> str:
        """The :func:`joining_key`, made once for each run."""
        name = (run.hash, stackable)
        if name not in self._keys:
            self._keys[name] = joining_key(run, stackable)
        return self._keys[name]

    def _train(self, jobs: list[Job]) -> None:
        self._report(jobs)
        try:
            self._go(jobs)
        except TogetherFailed:
            # Each alone, with a module of its own, from its last checkpoint.
            for job in jobs:
                if not (job.directory.path / RECORD).exists():
                    again = Job(job.directory, job.request, job.held, *self.parts.module(job.request))
                    self._go([again] if self._ready(again) else [])

    def _go(self, jobs: Sequence[Job]) -> None:
        train(jobs, self.preemption, self._report, self._ended)

    def _ready(self, job: Job) -> bool:
        """Set a job up; an error there fails the run, as one in training does."""
        threads = job.request.config["trainer"]["threads"]
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            ready(job)
        except BadInput as error:
            self._skip(job.directory, "refused", str(error))
            return False
        except Exception as error:
            log.exception("run %s failed", job.directory.path)
            self._ended(job, job.finish(*failure(job.module, error)))
            return False
        return True

    def _report(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.tell(Event(label(job.directory), "running", job.module.step, job.module.T))

    def _ended(self, job: Job, status: str, cause: str | None = None) -> None:
        self.tell(Event(label(job.directory), status, job.module.step, job.module.T, cause or ""))

    def _skip(self, directory: RunDirectory, decision: str, cause: str = "") -> None:
        self.tell(Event(label(directory), str(decision), cause=cause))


def label(directory: RunDirectory) -> str:
    """A run for a person: name/hash."""
    return f"{directory.path.parent.name}/{directory.path.name}"


class Parts:
    """Makes modules from configurations, and each part of them once: parts are descriptions, and batches functions of (seed, step)."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self._made: dict[str, Any] = {}
        self._data: tuple[str, Any] = ("", None)

    def module(self, request: Request) -> tuple[CurveModule, Any]:
        """The module of a run, and its data. Raises: BadInput that names the field."""
        config = request.config
        model, *parts = (self._part(config, group) for group in ("model", *OTHERS))
        data = self._source(request)
        return request.module(model, data=data, **dict(zip(OTHERS, parts, strict=True))), data

    def _part(self, config: Mapping[str, Any], group: str) -> Any:
        key = config_hash({group: config[group]})
        if key not in self._made:
            self._made[key] = self.build(config[group])
        return self._made[key]

    def _source(self, request: Request) -> Any:
        """The source of data on its device; only the last is kept, for it may be as large as the memory."""
        key = config_hash({"data": request.config["data"], "on": request.device, "as": str(request.dtype)})
        if key != self._data[0]:
            data = self.build(request.config["data"])
            data.place(request.device, request.dtype)
            data.prepare_data()
            self._data = (key, data)
        return self._data[1]


def joining_key(run: Planned | Request, stackable: Sequence[str]) -> str:
    """Equal for runs that differ in `stackable` entries only, and are done in the same way."""
    return config_hash({"science": without(run.science, stackable), "trainer": run.config["trainer"]})


def without(science: Mapping[str, Any], entries: Sequence[str]) -> dict[str, Any]:
    """A copy of nested mappings without the dotted `entries`.

    >>> without({"model": {"N": 4, "depth": 2}, "seed": 0}, ("model.N", "seed"))
    {'model': {'depth': 2}}
    """
    rest = {key: value for key, value in science.items() if key not in entries}
    for entry in entries:
        group, dot, key = entry.partition(".")
        if dot and isinstance(rest.get(group), Mapping):
            rest[group] = without(rest[group], (key,))
    return rest
