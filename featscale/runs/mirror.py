"""The W&B mirror of a run: one W&B run each, offline unless told otherwise, and never the reason why a run fails."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import polars as pl

from featscale.errors import require

log = logging.getLogger(__name__)

Mode = Literal["offline", "online", "shared", "disabled"]
MODES: tuple[str, ...] = get_args(Mode)
# Longest waits on the network, in seconds: to begin, and to upload what is left at the end.
INIT_SECONDS, FINISH_SECONDS = 60.0, 120.0
# Nothing is watched, captured or asked of the machine: the record holds versions, git state and host already. A run costs
# 20 ms like this and 120 ms with its list of installed packages.
SETTINGS: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "init_timeout": INIT_SECONDS,
    "finish_timeout": FINISH_SECONDS,
    "finish_timeout_raises": True,
}
FAILED = "failed"


class Mirror:
    """One W&B run around one run of ours; use it as a context manager.

    Whatever goes wrong with W&B, missing package, no key, no network, a folder that cannot be written, an error in the middle, costs one
    line of warning; the run goes on without, and `problem` says what it was, for the record.

    A resumed run begins a new offline folder with the same id. Uploading the later of two such folders replaces the earlier, so `log` is
    given all rows of the curve each time and a folder is complete by itself.

    Arguments: mode, "offline" (files below `directory`, no network), "online", "shared" or "disabled"; WANDB_MODE in the environment wins, unless
    heed_environment is false. project, group (the name of the runs), job_type. run_id, the hash of the configuration, also its displayed
    name. directory, where the folder wandb/ is put. config, shown and searchable.
    Raises: BadInput for an unknown mode, before anything is started.
    Cost: importing wandb and starting its service once a process, 1 to 2 s; then 20 ms a run and 0.5 ms a logged step.
    """

    def __init__(
        self,
        mode: Mode,
        project: str,
        group: str,
        job_type: str,
        run_id: str,
        directory: Path,
        config: Mapping[str, Any],
        heed_environment: bool = True,
    ) -> None:
        chosen = (os.environ.get("WANDB_MODE") if heed_environment else None) or mode
        require(
            chosen in MODES, "logger.mode", chosen, f"one of {', '.join(MODES)} (WANDB_MODE in the environment wins)"
        )
        self.mode, self.directory = chosen, directory
        self.arguments: dict[str, Any] = {
            "mode": chosen,
            "project": project,
            "group": group,
            "job_type": job_type,
            "id": run_id,
            "name": run_id,
            "config": dict(config),
        }
        self.problem: str | None = None
        self.run: Any = None
        self.logged = -1
        self.status = ""

    def __enter__(self) -> Self:
        """Begin the W&B run."""
        if self.mode != "disabled":
            self._guard("init", self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the W&B run, with exit code 1 if our run raised or its status is "failed", 0 otherwise."""
        del error, trace
        exit_code = 1 if kind is not None or self.status == FAILED else 0
        run, self.run = self.run, None
        if run is not None:
            self._guard("finish", lambda: run.finish(exit_code=exit_code))

    def log(self, rows: pl.DataFrame | Iterable[Mapping[str, Any]]) -> None:
        """Log the rows of the curve that were not logged yet, one W&B row a step.

        Arguments: rows, all rows so far, columns step, t, seed, loss and any others. Logged are step, t, the mean over the seeds that have
        a row at that step of each other column under its own name, their number as seeds, and loss/seed_k.
        """
        if self.run is not None:
            self._guard("log", lambda: self._log(_frame(rows)))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set entries of the summary; a `status` among them decides the exit code."""
        self.status = str(values.get("status", self.status))
        run = self.run
        if run is not None:
            self._guard("summary", lambda: run.summary.update(dict(values)))

    def _begin(self) -> None:
        # Read when wandb is imported; Settings come too late for what login says.
        os.environ.setdefault("WANDB_SILENT", "true")
        # As late as this: it takes a second, and it may be missing.
        import wandb

        if self.mode != "offline" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no key is stored; run `wandb login`, or use offline and `wandb sync` later")
        # W&B would fall back to the system's temporary folder, where nobody looks.
        folder = self.directory / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable", str(folder))
        self.run = wandb.init(
            dir=str(self.directory),
            resume="allow" if self.mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**SETTINGS),
            **self.arguments,
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        if self.run.resumed:
            self.logged = int(self.run.summary.get("step", -1))

    def _log(self, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        means = [pl.col(name).mean() for name in rows.columns if name not in ("step", "seed")]
        new = rows.filter(pl.col("step") > self.logged)
        table = (
            new.group_by("step")
            .agg(*means, pl.len().alias("seeds"), pl.struct("seed", "loss").alias("each"))
            .sort("step")
        )
        for row in table.iter_rows(named=True):
            each = {f"loss/seed_{entry['seed']}": entry["loss"] for entry in row.pop("each")}
            self.run.log(row | each)
            self.logged = row["step"]

    def _guard(self, what: str, action: Callable[[], object]) -> None:
        """Do `action`; if it fails, warn once, remember why, and do without W&B from then on."""
        try:
            action()
        except Exception as error:
            self.problem = f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"[:300]
            log.warning("W&B mirror given up, the run goes on: %s", self.problem)
            run, self.run = self.run, None
            if run is not None:
                self._abandon(run)

    def _abandon(self, run: Any) -> None:
        """Close a W&B run that failed, so that the next run of this process does not become part of it."""
        try:
            run.finish(exit_code=1)
        except Exception as error:
            self.problem = f"{self.problem}; and on closing it: {type(error).__name__}"


def _frame(rows: pl.DataFrame | Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    return rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(list(rows), infer_schema_length=None)
