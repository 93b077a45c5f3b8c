"""A whole sweep on one line: how many runs are done, running and failed, and how long it will take."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from featscale.cli.runs import duration

if TYPE_CHECKING:
    from featscale.training.orders import Event

# Seconds between two lines where nobody watches.
QUIET = 30.0
TRAINED = ("done", "diverged", "failed")
# What a later, weaker word about a run does not take back: two workers may each have their view of it.
FIRM = (*TRAINED, "finished")


class Board:
    """The latest word about each run of a sweep, shown while it runs.

    Arguments: runs, name/hash → number of steps, of all the runs. live, whether a person watches: a line that moves; else a line now and then.
    A run that ends badly or is refused has a line of its own either way.
    """

    def __init__(self, runs: dict[str, int], live: bool) -> None:
        self.runs, self.live = runs, live
        self.latest: dict[str, Event] = {}
        self.began = time.monotonic()
        self.printed = self.began
        # Steps that were made before this command, so that its speed is its own.
        self.given: dict[str, int] = {}
        self._progress: Any = None

    def __enter__(self) -> Board:
        """Show the line."""
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._progress.add_task("starting", total=max(sum(self.runs.values()), 1))
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the line away and print the last one."""
        if self._progress is not None:
            self._progress.stop()
        self._line(self.text())

    def tell(self, event: Event) -> None:
        """Take an event of a worker."""
        before = self.latest.get(event.run)
        if before is not None and before.status in FIRM and event.status not in TRAINED:
            return
        if before is not None and event.status in ("busy", "refused") and before.status == event.status:
            return
        self.latest[event.run] = event
        self.given.setdefault(event.run, self._steps(event))
        if event.status == "refused":
            self._line(f"error: {event.cause}")
        elif event.status in ("failed", "diverged"):
            self._line(f"{event.run}: {event.status}" + (f": {event.cause}" if event.cause else ""))
        self.show()

    def show(self) -> None:
        """Bring what is shown up to date."""
        if self._progress is not None:
            done = sum(self._steps(event) for event in self.latest.values())
            self._progress.update(self._task, completed=done, description=self.text())
        elif time.monotonic() - self.printed > QUIET:
            self._line(self.text())

    def counts(self) -> Counter[str]:
        """How many runs have which status; "waiting" are those of which nothing was heard."""
        counts = Counter(event.status for event in self.latest.values())
        counts["done"] += counts.pop("finished", 0)
        counts["waiting"] = len(self.runs) - len(self.latest)
        return +counts

    def ended(self) -> Counter[str]:
        """How many runs this command brought to their end, by how they ended."""
        return Counter(event.status for event in self.latest.values() if event.status in TRAINED and event.steps)

    def seconds_left(self) -> float | None:
        """Steps to go at this command's mean rate; None before there is one. A guess where runs differ in cost."""
        made = sum(self._steps(event) - self.given[run] for run, event in self.latest.items())
        left = sum(self.runs.values()) - sum(self._steps(event) for event in self.latest.values())
        return left * (time.monotonic() - self.began) / made if made > 0 else None

    def text(self) -> str:
        """The sweep in a line."""
        counts = self.counts()
        done = counts.pop("done", 0)
        parts = [
            f"{done} of {len(self.runs)} runs done",
            *(f"{count} {word}" for word, count in sorted(counts.items())),
        ]
        left = self.seconds_left()
        if left and (counts["running"] or counts["waiting"]):
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _steps(self, event: Event) -> int:
        """Steps of a run that need not be made any more."""
        return event.step if event.status == "running" else self.runs.get(event.run, 0)

    def _line(self, text: str) -> None:
        self.printed = time.monotonic()
        if self._progress is not None and self._progress.live.is_started:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(f"{text}\n")


def outcome(board: Board, others: Iterable[str] = ()) -> int:
    """The exit code of a sweep: 2 if a run is bad input, else 1 if one failed, else 0."""
    words = {event.status for event in board.latest.values()} | set(others)
    return 2 if "refused" in words else int("failed" in words)
