"""What a run will cost, from a few steps of it."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from featscale.training.group import Loop
from featscale.training.module import CurveModule

# Measured for so long, in seconds, and at most so many times doubled.
ENOUGH, DOUBLINGS = 0.3, 16


@dataclass(frozen=True)
class Estimate:
    """The measured cost of one run.

    setup_seconds, from a built module to its first step. seconds_per_step. seconds_per_row, of one row of the curve. rows, and steps, of the
    whole run. flops_per_step, as the model counts them. memory_bytes, the largest that this process has been until now; on a GPU the largest
    that was allocated there for this run.
    """

    setup_seconds: float
    seconds_per_step: float
    seconds_per_row: float
    rows: int
    steps: int
    flops_per_step: float
    memory_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.setup_seconds + self.steps * self.seconds_per_step + self.rows * self.seconds_per_row

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.steps * self.flops_per_step


def estimate(module: CurveModule, data: Any, device: str, seconds: float = ENOUGH) -> Estimate:
    """Make steps of a fresh module for `seconds`, and say what all of them will cost; nothing is written.

    The first step, which may set things up, counts as set-up. Source: derived; test tests/training/test_estimate.py.
    Accuracy: that of a short timing: 10 to 30 % on a quiet machine; a run that diverges early costs less.
    Cost: the set-up of one run, and about twice `seconds`.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = _now(device)
    data.setup("fit")
    module.to(device)
    made: Any = module.configure_optimizers()
    module.trainer = Loop([] if made is None else [made])
    module.on_fit_start()
    module.train()
    module.advance(0, 1)
    setup = _now(device) - began
    began = _now(device)
    module.observe()
    row = _now(device) - began
    step, spent = _per_step(module, device, seconds)
    return Estimate(
        setup_seconds=setup,
        seconds_per_step=spent / (step - 1) if step > 1 else 0.0,
        seconds_per_row=row,
        rows=len(module.log_steps),
        steps=module.T,
        flops_per_step=module.flops_per_step(),
        memory_bytes=_memory(device),
    )


def _per_step(module: CurveModule, device: str, seconds: float) -> tuple[int, float]:
    """Steps 1, 2, … in ranges of doubling length; returns where they ended and what they took."""
    step, length, began = 1, 1, _now(device)
    for _ in range(DOUBLINGS):
        stop = min(step + length, module.T)
        module.advance(step, stop)
        step, length = stop, 2 * length
        if _now(device) - began >= seconds or step == module.T:
            break
    return step, _now(device) - began


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    # Kilobytes, but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
