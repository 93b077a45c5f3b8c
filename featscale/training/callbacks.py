"""Callbacks of a run: checkpoints by time, heartbeats, and progress with time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from featscale.training.module import CurveModule


class Checkpoint(Callback):
    """Saves the whole state at most every `seconds`, through a temporary file, so that a kill leaves the old file or the new one.

    Arguments: path of the checkpoint. seconds >= 0; 0 saves after every chunk. on_save, called with the module after each save.
    """

    def __init__(self, path: Path, seconds: float, on_save: Callable[[CurveModule], None]) -> None:
        self.path, self.seconds, self.on_save = path, seconds, on_save
        self.saved = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Save when it is time."""
        if time.monotonic() - self.saved >= self.seconds and module.step < module.T:
            self.save(trainer, module)

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        """Say what an interruption costs; the state inside a chunk of steps is no state to save."""
        del trainer, module
        if isinstance(exception, KeyboardInterrupt):
            kept = "its last checkpoint" if self.path.exists() else "step 0"
            sys.stderr.write(f"interrupted; the same command goes on from {kept}\n")

    def save(self, trainer: Trainer, module: CurveModule) -> None:
        """Write the checkpoint, then let `on_save` mirror it."""
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, self.path)
        self.on_save(module)
        self.saved = time.monotonic()


class Heartbeat(Callback):
    """Calls `beat` with the module at most every `seconds`, so that others see that the run is alive and how far it is."""

    def __init__(self, beat: Callable[[CurveModule], None], seconds: float = 5.0) -> None:
        self.beat, self.seconds = beat, seconds
        self.last = -float("inf")

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Beat when it is time."""
        del trainer
        if time.monotonic() - self.last >= self.seconds:
            self.beat(module)
            self.last = time.monotonic()


class ProgressLine(Callback):
    """A line on stderr: steps done, loss, time left."""

    def __init__(self, title: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        self.progress, self.title = Progress(*columns, console=Console(file=sys.stderr), transient=True), title

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Show the line, from the step where a resumed run goes on."""
        del trainer
        self.task = self.progress.add_task(self.title, total=module.T, completed=module.step, loss="–")
        self.progress.start()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Move the line."""
        del trainer
        loss = f"{module.rows[-1]['loss']:.4g}" if module.rows else "–"
        self.progress.update(self.task, completed=module.step, loss=loss)

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        """Take the line away, however the run ended."""
        del trainer, module, stage
        self.progress.stop()
