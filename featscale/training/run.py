"""One run from its parts to its record: claim, train or resume, write the curve, and say how it ended."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from featscale.errors import BadInput, require
from featscale.runs.claims import Claim, claim
from featscale.runs.directory import Decision, RunDirectory, should_run
from featscale.runs.identity import config_hash
from featscale.runs.mirror import Mirror
from featscale.runs.provenance import keep_difference, provenance, utc_now
from featscale.runs.record import Outcome, Record, Stop
from featscale.training import checkpoint
from featscale.training.callbacks import ProgressLine
from featscale.training.checkpoint import CannotSave
from featscale.training.execution import PRECISIONS, Execution
from featscale.training.module import CurveModule
from featscale.training.place import HOW
from featscale.training.preemption import Preemption
from featscale.training.watch import Watch

log = logging.getLogger(__name__)

# Where the source lies that makes the runs.
SOURCE = Path(__file__).parent
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Request:
    """What is asked for: the whole resolved configuration, the part of it that names the run, and the overrides as typed."""

    config: Mapping[str, Any]
    science: Mapping[str, Any]
    overrides: Sequence[str] = ()

    @cached_property
    def hash(self) -> str:
        """The name of the run's folder."""
        return config_hash(self.science)

    def __post_init__(self) -> None:
        trainer, seconds = self.config["trainer"], self.config["trainer"]["checkpoint_seconds"]
        accelerator, threads = trainer["accelerator"], trainer["threads"]
        require(accelerator in ACCELERATORS, "trainer.accelerator", accelerator, "one of " + ", ".join(ACCELERATORS))
        cpu = accelerator != "gpu" or torch.cuda.is_available()
        require(cpu, "trainer.accelerator", accelerator, "cpu or auto: no GPU is visible here")
        require(
            trainer["devices"] == 1,
            "trainer.devices",
            trainer["devices"],
            f"1: on several devices a run is trained by `{HOW}`",
        )
        number = isinstance(seconds, (int, float)) and seconds >= 0
        require(number, "trainer.checkpoint_seconds", seconds, "a number >= 0")
        require(
            threads is None or (isinstance(threads, int) and threads >= 1),
            "trainer.threads",
            threads,
            "an integer >= 1, or null",
        )
        require(
            trainer["progress"] in ("auto", True, False), "trainer.progress", trainer["progress"], "auto, true or false"
        )
        self.execution.check(self.device)

    @property
    def device(self) -> str:
        """The torch device type of the run."""
        return "cuda" if self.config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and data."""
        return PRECISIONS[self.config["precision"]].dtype

    @property
    def execution(self) -> Execution:
        """How steps are made; manifests made before there was a choice say nothing of it."""
        trainer = self.config["trainer"]
        options = {name: trainer.get(name, False) for name in ("compile", "cuda_graph")}
        return Execution(PRECISIONS[self.config["precision"]].products, **options)

    def module(self, model: Callable[..., CurveModule], **parts: Any) -> CurveModule:
        """The Lightning module of the run."""
        config = self.config
        return model(
            **parts,
            dtype=self.dtype,
            T=config["steps"],
            seeds=tuple(range(config["seed"], config["seed"] + config["seeds"])),
            chunk=config["trainer"]["chunk"],
            rows_per_decade=config["rows_per_decade"],
            execution=self.execution,
        )


@dataclass
class Job:
    """A claimed run on its way to its record.

    directory, request, held: whose it is. module, and data as it is placed. spent, seconds of earlier attempts. share, how many runs the time
    since `clock` was for. processes, that train it together. notes, for the record's extra entries. A checkpoint that is there is taken up at once.
    """

    directory: RunDirectory
    request: Request
    held: Claim
    module: CurveModule
    data: Any
    spent: float = 0.0
    share: int = 1
    notes: dict[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=utc_now)
    clock: float = field(default_factory=time.monotonic)
    # When the training ended, where the clock is not to count what comes after.
    stopped: float | None = None
    saved: Mapping[str, Any] | None = None
    # Kept here because a module keeps only a weak reference to its trainer.
    loop: Any = None
    processes: int = 1

    def __post_init__(self) -> None:
        self.saved = checkpoint.load(self.directory.checkpoint)
        if self.saved is not None:
            checkpoint.restore(self.module, self.saved)
            self.spent = float(self.saved.get("wall_seconds", 0.0))

    @property
    def hash(self) -> str:
        """The name of the run's folder."""
        return self.directory.path.name

    @property
    def wall_seconds(self) -> float:
        """Spent on the run so far, earlier attempts included; the time of runs trained together is shared out."""
        now = time.monotonic() if self.stopped is None else self.stopped
        return self.spent + (now - self.clock) / self.share

    def beat(self) -> None:
        """Show others that the run is alive and how far it is."""
        self.held.beat(self.module.step, self.module.T, self.module.eta * self.module.step)

    def restore_optimizers(self) -> None:
        """Take the optimisers' part of the checkpoint, once there are optimisers."""
        if self.saved is not None:
            checkpoint.restore_optimizers(self.module, self.saved)
            self.saved = None

    def save(self) -> None:
        """Write a checkpoint and, for those who watch, the curve so far. Raises: CannotSave."""
        checkpoint.save(self.module, self.directory.checkpoint, self.wall_seconds)
        try:
            self.directory.write_curve(self.module.curve())
        except OSError as error:
            raise CannotSave(error, self.directory.path) from error
        self.held.progressed()

    def finish(self, status: Outcome, cause: str | None = None, mirror: Mirror | None = None) -> Outcome:
        """Write the curve, mirror it, and last write the record. Raises: OSError, and the run goes on from its checkpoint."""
        curve = self.module.curve()
        self.directory.write_curve(curve)
        with mirror or make_mirror(self.directory, self.request) as mirror:
            mirror.log(curve)
            record = _record(self, status, cause, mirror)
            mirror.summary({"status": record.status, **record.metrics})
        keep_difference(SOURCE, self.directory.path.parent)
        self.directory.write_record(record)
        return record.status


def execute(
    directory: RunDirectory,
    request: Request,
    model: Callable[..., CurveModule],
    data: Any,
    preemption: Preemption | None = None,
    **parts: Any,
) -> Outcome:
    """Train a run to its end with Lightning's Trainer, from its checkpoint if it has one, and record it; returns how it ended.

    Arguments: directory, of the run, made only when every part is known to be good. model, a function of data and the other parts
    (parameterization, optimizer, loss) that returns the module. data, a datamodule with `place`. preemption, whose signals stop the run; by default
    its own.
    Raises: BadInput before anything is written; RunBusy if another process trains this run; Preempted, after saving, if asked to stop;
    CannotSave if a checkpoint cannot be written.
    """
    if request.config["trainer"]["threads"] is not None:
        torch.set_num_threads(request.config["trainer"]["threads"])
    data.place(request.device, request.dtype)
    data.prepare_data()
    module = request.module(model, data=data, **parts)
    mirror = make_mirror(directory, request)
    with claim(directory) as held, preemption or Preemption() as signals:
        if not begin(directory, request).trains:
            return directory.read_record().status
        job = Job(directory, request, held, module, data)
        return job.finish(*_fit(job, signals), mirror=mirror)


def begin(directory: RunDirectory, request: Request) -> Decision:
    """Make a claimed directory ready to be trained, if it is to be; returns what is to be done.

    Raises: BadInput for a damaged record or curve, unless retry_failed.
    """
    decision = should_run(directory, request.config["retry_failed"], claimed=True)
    if decision is Decision.RETRY:
        directory.restart()
    if decision.trains:
        directory.write_config(request.config, request.science)
    return decision


def _fit(job: Job, preemption: Preemption) -> tuple[Outcome, str | None]:
    """Train; an exception of the training is a failed run, an interruption or a full disk is none."""
    module = job.module
    watch = Watch([job], job.request.config["trainer"]["checkpoint_seconds"], preemption)
    module.march.pause = watch
    trainer = _trainer(job, preemption)
    try:
        with warnings.catch_warnings():
            # Lightning advises on data loading, which here is only ranges of steps.
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(module, datamodule=job.data)
    except (CannotSave, BadInput):
        raise
    except Exception as error:
        log.exception("run %s failed", job.directory.path)
        return failure(module, error)
    if trainer.interrupted:
        raise KeyboardInterrupt
    watch.leave()
    return ending(module)


def failure(module: CurveModule, error: Exception) -> tuple[Outcome, str]:
    """Status and cause of a run whose training raised `error`."""
    return "failed", f"{type(error).__name__} at step {module.step}: {' '.join(str(error).split())[:500]}"


def ending(module: CurveModule) -> tuple[Outcome, str | None]:
    """Status and cause of a run whose training ended by itself."""
    if not module.diverged:
        return "done", None
    first = min(module.diverged.values(), key=lambda stop: stop.step)
    growth = "" if first.K is None else f", K = {first.K:.4g}"
    return "diverged", (
        f"{len(module.diverged)} of {len(module.seeds)} seeds diverged, the first (seed {first.seed}) "
        f"by step {first.step}, t = {first.t:.4g}{growth}"
    )


class _Attach(Callback):
    """What a fit needs once Lightning has set it up: our signals, and the optimisers' state."""

    def __init__(self, job: Job, preemption: Preemption) -> None:
        self.job, self.preemption = job, preemption

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Take the signals from Lightning, whose own handlers would end the process with success."""
        del trainer, module
        self.preemption.install()
        self.job.restore_optimizers()


def _trainer(job: Job, preemption: Preemption) -> Trainer:
    """A lean trainer: no logger, no progress bar and no checkpoints of Lightning's own."""
    directory, options = job.directory, job.request.config["trainer"]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callbacks: list[Callback] = [_Attach(job, preemption)]
    if options["progress"] is True or (options["progress"] == "auto" and sys.stderr.isatty()):
        callbacks.append(ProgressLine(f"{directory.path.parent.name}/{directory.path.name}"))
    return Trainer(
        accelerator="gpu" if job.request.device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        # One process a run, also inside Slurm jobs and where Slurm is only installed, which Lightning would warn about.
        plugins=[LightningEnvironment()],
        default_root_dir=directory.path,
    )


def make_mirror(directory: RunDirectory, request: Request) -> Mirror:
    """The W&B mirror of a run. Raises: BadInput for an unknown mode."""
    logger = request.config["logger"]
    return Mirror(
        mode=logger["mode"],
        project=logger["project"],
        group=request.config["name"],
        job_type=logger.get("job_type", "train"),
        run_id=directory.path.name,
        directory=directory.path,
        config=request.config,
    )


def _record(job: Job, status: Outcome, cause: str | None, mirror: Mirror) -> Record:
    module, request = job.module, job.request
    last = [row for row in module.rows if row["step"] == module.log_steps[module.log_steps <= module.step].max()]
    numbers = [name for name in (last[0] if last else {}) if name not in ("seed", "step", "t")]
    metrics = {name: sum(float(row[name]) for row in last) / len(last) for name in numbers}
    return Record(
        status=status,
        cause=cause,
        name=request.config["name"],
        hash=job.hash,
        science=request.science,
        seeds=module.seeds,
        step=module.step,
        steps=module.T,
        wall_seconds=job.wall_seconds,
        started=job.started,
        ended=utc_now(),
        stopped=tuple(Stop(d.seed, d.step, d.t, d.loss, d.K) for d in module.diverged.values()),
        metrics=metrics,
        flops=module.flops_per_step() * module.step if module.step else 0.0,
        overrides=tuple(request.overrides),
        device=torch.cuda.get_device_name()
        if request.device == "cuda"
        else f"cpu, {platform.machine()}, {os.cpu_count()} cores",
        processes=job.processes,
        mirror_problem=mirror.problem,
        extra=job.notes,
        **provenance(SOURCE),
    )
