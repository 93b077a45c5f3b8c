"""Runs trained one after another, each by all processes of a team on one batch (DDP).

The leader claims a run and names it; all build it from the manifest, take its checkpoint, and make the same steps: each process takes the
gradient of its slice of the same batch, and the mean over the processes is that of the whole batch. The curve is that of one process to rounding
(tests/training/test_ddp.py). Only the leader writes.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from featscale.errors import BadInput, require
from featscale.runs.claims import RunBusy, claim
from featscale.runs.directory import Decision, RunDirectory, should_run
from featscale.runs.manifest import Manifest, Planned
from featscale.training.checkpoint import CannotSave
from featscale.training.group import ready
from featscale.training.march import March
from featscale.training.module import CurveModule
from featscale.training.orders import Event, Policy
from featscale.training.preemption import Preempted, Preemption
from featscale.training.run import Job, Request, begin, ending, failure
from featscale.training.team import Sliced, Team, TeamBroken
from featscale.training.watch import Watch
from featscale.training.worker import Build, Parts, label, silent

log = logging.getLogger(__name__)


class SlicedParts(Parts):
    """Parts of runs whose source of data is this process's slice."""

    def __init__(self, build: Build, team: Team) -> None:
        super().__init__(build)
        self.team = team

    def module(self, request: Request) -> tuple[CurveModule, Any]:
        """The module of a run, its gradients averaged. Raises: BadInput that names the field."""
        whole = "false here: averaging is no part of a recording; a worker without --ddp records steps"
        require(not request.execution.cuda_graph, "trainer.cuda_graph", True, whole)
        module, data = super().module(request)
        require(
            hasattr(module, "gradients_ready"),
            "model",
            type(module).__name__,
            "a network: this model has no gradients to average; `featscale worker DIR` without --ddp trains it",
        )
        module.gradients_ready = self.team.average
        return module, data

    def _source(self, request: Request) -> Any:
        return Sliced(super()._source(request), self.team.place)


class Agreed(Preemption):
    """The signals of all processes: to stop is what the team has agreed on, so that all stop at one step."""

    def __init__(self, team: Team, own: Preemption) -> None:
        super().__init__()
        self.team, self.own = team, own
        team.asked = own.asked

    def asked(self) -> bool:
        """Whether the team stops here."""
        if self.team.stopping:
            self.signum = self.own.signum or signal.SIGTERM
        return self.team.stopping


class TeamWorker:
    """Trains the runs of `sweeps` with a team, until none is left.

    Arguments: as of :class:`featscale.training.worker.Worker`.
    """

    def __init__(
        self,
        sweeps: Iterable[Manifest],
        build: Build,
        team: Team,
        preemption: Preemption,
        policy: Policy | None = None,
        tell: Callable[[Event], None] = silent,
    ) -> None:
        self.team, self.policy, self.tell = team, policy or Policy(), tell
        self.parts, self.agreed, self.own = SlicedParts(build, team), Agreed(team, preemption), preemption
        self.runs: Mapping[str, tuple[RunDirectory, Planned]] = {
            label(sweep.directory(run)): (sweep.directory(run), run) for sweep in sweeps for run in sweep.read()
        }

    def run(self) -> None:
        """Work until nothing is left.

        Raises: Preempted, with everything saved; CannotSave; TeamBroken when another process is gone or a run failed, after which the team is to
        be started again.
        """
        if self.team.place.leads:
            self._lead()
        else:
            self._follow()

    def _lead(self) -> None:
        for name, (directory, _) in self.runs.items():
            if self.own.asked():
                break
            try:
                request = self._request(name)
                if should_run(directory, self.policy.retry_failed).trains:
                    module, data = self.parts.module(request)
                    with claim(directory) as held:
                        decision = begin(directory, request)
                        if decision.trains:
                            self.team.broadcast(name)
                            job = Job(directory, request, held, module, data, processes=self.team.place.processes)
                            self._lead_through(job)
                            continue
                self._skip(name, should_run(directory, self.policy.retry_failed))
            except RunBusy:
                self._skip(name, Decision.BUSY)
            except BadInput as error:
                self._skip(name, "refused", str(error))
        self.team.broadcast("")
        self.own.check("between two runs")

    def _follow(self) -> None:
        while name := self.team.broadcast():
            request = self._request(name)
            module, data = self.parts.module(request)
            job = Job(self.runs[name][0], request, None, module, data)  # type: ignore[arg-type]
            self._march(job, lambda: self.team.stopping)
            if self.team.stopping and not module.over:
                raise Preempted(self.own.signum or signal.SIGTERM, "the leader has saved")
        self.own.check("between two runs")

    def _lead_through(self, job: Job) -> None:
        """Train and record a run."""
        watch = Watch([job], job.request.config["trainer"]["checkpoint_seconds"], self.agreed, self._report)
        try:
            self._march(job, watch)
        except (CannotSave, TeamBroken):
            raise
        except Exception as error:
            log.exception("run %s failed", job.directory.path)
            self._ended(job, *failure(job.module, error))
            # The others may wait in the middle of a step.
            raise TeamBroken(f"{label(job.directory)} failed; start the team again for the other runs") from error
        watch.leave()
        self._ended(job, *ending(job.module))

    def _march(self, job: Job, pause: Callable[[], bool]) -> None:
        """All make the same steps, one at a time, so that all may pause at the same."""
        ready(job)
        self.team.agree(job.module.step)
        March([job.module], 1, pause).to(job.module.T)

    def _request(self, name: str) -> Request:
        _, run = self.runs[name]
        return Request({**run.config, "retry_failed": self.policy.retry_failed}, run.science, run.overrides)

    def _report(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.tell(Event(label(job.directory), "running", job.module.step, job.module.T))

    def _ended(self, job: Job, status: Any, cause: str | None = None) -> None:
        job.finish(status, cause)
        self.tell(Event(label(job.directory), status, job.module.step, job.module.T, cause or ""))

    def _skip(self, name: str, decision: str, cause: str = "") -> None:
        self.tell(Event(name, str(decision), cause=cause))
