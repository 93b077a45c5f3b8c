"""What is done between the steps of runs: heartbeats, checkpoints by time, and stopping when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from featscale.training.preemption import Preempted, Preemption

if TYPE_CHECKING:
    from featscale.training.run import Job

# Seconds between two heartbeats.
BEAT = 5.0


class Watch:
    """The pause of a march (:class:`featscale.training.march.March`) of one or more claimed runs.

    Arguments: jobs, the runs. seconds >= 0, at most so much work is lost when the process is killed; 0 saves at every pause. preemption, who
    says whether to stop; then everything is saved first. report, called with the jobs at each heartbeat.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        seconds: float,
        preemption: Preemption,
        report: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ) -> None:
        self.jobs, self.seconds, self.preemption, self.report = jobs, seconds, preemption, report
        self.saved, self.beaten = time.monotonic(), -float("inf")
        self.stopped = False

    def __call__(self) -> bool:
        """Beat and save when it is time; returns whether to stop here."""
        now = time.monotonic()
        if now - self.beaten >= BEAT:
            for job in self.jobs:
                job.beat()
            self.report(self.jobs)
            self.beaten = now
        going = [job for job in self.jobs if not job.module.over]
        asked = bool(going) and self.preemption.asked()
        if asked or now - self.saved >= self.seconds:
            for job in going:
                job.save()
            self.saved = time.monotonic()
        self.stopped = self.stopped or asked
        return asked

    def leave(self) -> None:
        """Raise :class:`Preempted` if the march was stopped here."""
        if self.stopped:
            steps = sorted({job.module.step for job in self.jobs if not job.module.over})
            assert self.preemption.signum is not None
            raise Preempted(self.preemption.signum, f"saved at step {', '.join(map(str, steps))}")
