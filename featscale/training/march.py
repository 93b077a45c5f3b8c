"""Modules on their way through the steps together: measured where a row is due, and open to interruption at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from featscale.training.module import CurveModule

# Longest wait for a pause, in seconds, once the speed is known: what a preempted job may spend before it saves.
PATIENCE = 0.25

Pause = Callable[[], bool]


class Joined(Protocol):
    """What advances several modules together; see :meth:`featscale.training.module.CurveModule.join`."""

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1 of every member."""


class OneByOne:
    """Members advanced one after the other: the definition that every other way is tested against."""

    def __init__(self, members: Sequence[CurveModule]) -> None:
        self.members = members

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1 of every member."""
        for member in self.members:
            member.advance(start, stop)


def no_pause() -> bool:
    """Nothing to do between steps, and no reason to stop."""
    return False


class March:
    """Members of one shape that stand at one step, and go on together from there.

    Between two ranges of steps, at most PATIENCE seconds apart once the speed is known, every member is in a state that can be saved, and
    `pause` is called; it says whether to stop there. A member that is over drops out.

    Arguments: members, of one shape, at one step. chunk, the most steps in a range. pause, see above.
    """

    def __init__(self, members: Sequence[CurveModule], chunk: int, pause: Pause = no_pause) -> None:
        self.members, self.chunk, self.pause = list(members), chunk, pause
        self.walking: list[CurveModule] = []
        self.range = 1

    def to(self, stop: int) -> bool:
        """Go to step `stop`; returns False when `pause` asked to stop before, or when nobody is left."""
        self._begin()
        while self.walking and (here := self.walking[0].step) < stop:
            log_steps = self.walking[0].log_steps
            due = log_steps[log_steps.searchsorted(here, side="right") :][:1].tolist()
            edge = min([stop, here + self.range, *due])
            began = time.monotonic()
            self.joined.advance(here, edge)
            self._adapt(edge - here, time.monotonic() - began)
            for member in self.walking:
                member.step = edge
                if [edge] == due:
                    member.record()
            if any(member.over for member in self.walking):
                self._join()
            if self.pause():
                return False
        return bool(self.walking)

    def _begin(self) -> None:
        if self.walking:
            return
        for member in self.members:
            if member.step == 0 and not member.rows:
                member.record()
        self._join()

    def _join(self) -> None:
        self.walking = [member for member in self.members if not member.over]
        if len(self.walking) == 1:
            self.joined: Joined = self.walking[0]
        elif self.walking:
            self.joined = type(self.walking[0]).join(self.walking)

    def _adapt(self, steps: int, seconds: float) -> None:
        """Longer ranges while they are quick, shorter ones when they try the patience."""
        if seconds > PATIENCE:
            self.range = max(1, int(steps * PATIENCE / seconds))
        elif seconds < PATIENCE / 2 and steps == self.range:
            self.range = min(2 * self.range, self.chunk)
