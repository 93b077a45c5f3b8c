"""What runs will cost, from a few steps of them: measured as a worker trains them, several together where it would join them."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from featscale.runs.manifest import Planned, plan
from featscale.training.group import set_up
from featscale.training.module import CurveModule
from featscale.training.orders import Event, Policy
from featscale.training.preemption import Preemption
from featscale.training.worker import Build, Worker

# Measured for so long, in seconds.
ENOUGH = 0.3
# Runs of one step, of which the first pays for what is done once.
TRIALS = 2
ENDED = ("done", "diverged", "failed", "refused")
# What the tests put processor time in the place of.
clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Estimate:
    """The measured cost of a group of runs that a worker takes together; of a group of one, of a run.

    seconds_per_step, of all of them. seconds_per_row, of one row of each curve. together, how many at most are of one shape and so make their steps
    together. memory_bytes, the largest that this process has been until now; on a GPU the largest that was allocated there for these runs.
    """

    seconds_per_step: float
    seconds_per_row: float
    together: int
    memory_bytes: int


@dataclass(frozen=True)
class Overhead:
    """What runs of one step cost: seconds, of each, to be built, claimed, trained and recorded; once, more for the first (imports, data)."""

    once: float
    seconds: float


def estimate(modules: Sequence[CurveModule], data: Any, device: str, seconds: float = ENOUGH) -> Estimate:
    """Make steps of fresh `modules`, those of one shape together, each shape for `seconds`, and say what all of them will cost; nothing is written.

    The first step, which may set things up, does not count, and of the ranges of steps only the second half, which are at most a chunk long like
    those of training. Source: derived; tests tests/training/test_estimate.py, tests/cli/test_dry.py.
    Accuracy: that of a short timing: 10 to 30 % on a quiet machine; a run that diverges early costs less.
    Cost: the set-up of the runs, a row, and about `seconds` for each shape.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loops = [set_up(module, data, device) for module in modules]
    shapes: dict[Any, list[CurveModule]] = {}
    for module in modules:
        shapes.setdefault(module.shape() if module.stackable else id(module), []).append(module)
    per_step = sum(_per_step(members, device, seconds) for members in shapes.values())
    began = _now(device)
    for module in modules:
        module.observe()
    row = _now(device) - began
    del loops
    together = max(map(len, shapes.values()))
    return Estimate(per_step, row, together, _memory(device))


def overhead(run: Planned, build: Build) -> Overhead:
    """Train runs of one step like `run` in a temporary folder, as a worker does, alone."""
    ended: list[float] = []
    began = clock()
    with tempfile.TemporaryDirectory() as root, Preemption() as preemption:
        seed = int(run.science["seed"])
        short = {"steps": 1}
        runs = [
            Planned({**run.config, **short, "seed": seed + i}, {**run.science, **short, "seed": seed + i})
            for i in range(TRIALS)
        ]

        def tell(event: Event) -> None:
            if event.status in ENDED:
                ended.append(clock())

        Worker(plan(root, runs), build, preemption, Policy(most=1), tell).run()
    first = ended[0] - began
    later = (ended[-1] - ended[0]) / max(len(ended) - 1, 1)
    return Overhead(max(first - later, 0.0), later)


def _per_step(members: Sequence[CurveModule], device: str, seconds: float) -> float:
    """Seconds a step of all members, from steps 1, 2, … in ranges of doubling length up to a chunk."""
    first = members[0]
    T, chunk = first.T, first.chunk
    joined = first if len(members) == 1 else type(first).join(members)
    joined.advance(0, 1)
    step, length, began = 1, 1, _now(device)
    spent: list[tuple[int, float]] = []
    while step < T and _now(device) - began < seconds:
        stop, start = min(step + length, T), _now(device)
        joined.advance(step, stop)
        spent.append((stop - step, _now(device) - start))
        step, length = stop, min(2 * length, chunk)
    warm = spent[len(spent) // 2 :]
    return sum(taken for _, taken in warm) / max(sum(steps for steps, _ in warm), 1)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return clock()


def _memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Kilobytes, but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
