"""Callbacks of a run: progress with time left."""

from __future__ import annotations

import sys
from typing import Any

from lightning import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
