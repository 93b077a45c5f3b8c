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
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from featscale.errors import require
from featscale.runs.directory import Claim, RunDirectory, claim, should_run
from featscale.runs.mirror import Mirror
from featscale.runs.provenance import provenance, utc_now
from featscale.runs.record import Outcome, Record, Stop
from featscale.training.callbacks import Checkpoint, Heartbeat, ProgressLine
from featscale.training.module import CurveModule

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class Request:
    """What is asked for: the whole resolved configuration, the part of it that names the run, and the overrides as typed."""

    config: Mapping[str, Any]
    science: Mapping[str, Any]
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        trainer, seconds = self.config["trainer"], self.config["trainer"]["checkpoint_seconds"]
        accelerator, threads = trainer["accelerator"], trainer["threads"]
        require(accelerator in ACCELERATORS, "trainer.accelerator", accelerator, "one of " + ", ".join(ACCELERATORS))
        cpu = accelerator != "gpu" or torch.cuda.is_available()
        require(cpu, "trainer.accelerator", accelerator, "cpu or auto: no GPU is visible here")
        require(trainer["devices"] == 1, "trainer.devices", trainer["devices"], "1: a run trains on one device")
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

    @property
    def device(self) -> str:
        """The torch device type of the run."""
        return "cuda" if self.config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available() else "cpu"

    def module(self, model: Callable[..., CurveModule], **parts: Any) -> CurveModule:
        """The Lightning module of the run."""
        config = self.config
        return model(
            **parts,
            dtype=DTYPES[config["precision"]],
            T=config["steps"],
            seeds=tuple(range(config["seed"], config["seed"] + config["seeds"])),
            chunk=config["trainer"]["chunk"],
            rows_per_decade=config["rows_per_decade"],
        )


def execute(
    directory: RunDirectory, request: Request, model: Callable[..., CurveModule], data: Any, **parts: Any
) -> Outcome:
    """Train a run to its end, from its checkpoint if it has one, and record it; returns how it ended.

    Arguments: directory, of the run, made only when every part is known to be good. model, a function of data and the other parts
    (parameterization, optimizer, loss) that returns the module. data, a datamodule with `place`.
    Raises: BadInput before anything is written; RunBusy if another process trains this run.
    """
    if request.config["trainer"]["threads"] is not None:
        torch.set_num_threads(request.config["trainer"]["threads"])
    data.place(request.device, DTYPES[request.config["precision"]])
    data.prepare_data()
    module = request.module(model, data=data, **parts)
    mirror = _mirror(directory, request)
    with claim(directory) as held:
        decision = should_run(directory, request.config["retry_failed"], claimed=True)
        if not decision.trains:
            return directory.read_record().status
        if decision == "retry":
            directory.restart()
        directory.write_config(request.config, request.science)
        with mirror:
            ending = _fit(directory, request, module, data, held)
            curve = module.curve()
            directory.write_curve(curve)
            mirror.log(curve)
            record = _record(directory, request, module, ending, mirror)
            mirror.summary({"status": record.status, **record.metrics})
        directory.write_record(record)
    return record.status


@dataclass
class _Ending:
    """How and when the training of a run ended."""

    status: Outcome = "done"
    cause: str | None = None
    started: str = field(default_factory=utc_now)
    clock: float = field(default_factory=time.monotonic)


def _fit(directory: RunDirectory, request: Request, module: CurveModule, data: Any, held: Claim) -> _Ending:
    """Train; an exception of the training is a failed run, an interruption is none."""
    ending = _Ending()
    trainer = _trainer(directory, request, module, held)
    resume = _readable(directory.checkpoint)
    try:
        with warnings.catch_warnings():
            # Lightning advises on data loading, which here is only ranges of steps.
            warnings.filterwarnings("ignore", module="lightning")
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    except Exception as error:
        log.exception("run %s failed", directory.path)
        ending.status = "failed"
        ending.cause = f"{type(error).__name__} at step {module.step}: {' '.join(str(error).split())[:500]}"
        return ending
    if trainer.interrupted:
        raise KeyboardInterrupt
    if module.diverged:
        first = min(module.diverged.values(), key=lambda stop: stop.step)
        growth = "" if first.K is None else f", K = {first.K:.4g}"
        ending.status = "diverged"
        ending.cause = (
            f"{len(module.diverged)} of {len(module.seeds)} seeds diverged, the first (seed {first.seed}) "
            f"by step {first.step}, t = {first.t:.4g}{growth}"
        )
    return ending


def _trainer(directory: RunDirectory, request: Request, module: CurveModule, held: Claim) -> Trainer:
    """A lean trainer: no logger, no progress bar and no checkpoints of Lightning's own."""
    options = request.config["trainer"]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callbacks: list[Callback] = [
        Checkpoint(directory.checkpoint, options["checkpoint_seconds"], lambda one: directory.write_curve(one.curve())),
        Heartbeat(lambda one: held.beat(one.step, one.T, one.eta * one.step)),
    ]
    if options["progress"] is True or (options["progress"] == "auto" and sys.stderr.isatty()):
        callbacks.append(ProgressLine(f"{directory.path.parent.name}/{directory.path.name}"))
    return Trainer(
        accelerator="gpu" if request.device == "cuda" else "cpu",
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


def _readable(checkpoint: Path) -> Path | None:
    """The checkpoint if there is one that loads; one that does not is named and left behind."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, weights_only=True, map_location="cpu")
    except Exception as error:
        log.warning("checkpoint %s cannot be read (%s); starting from step 0", checkpoint, type(error).__name__)
        return None
    return checkpoint


def _mirror(directory: RunDirectory, request: Request) -> Mirror:
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


def _record(directory: RunDirectory, request: Request, module: CurveModule, ending: _Ending, mirror: Mirror) -> Record:
    last = [row for row in module.rows if row["step"] == module.log_steps[module.log_steps <= module.step].max()]
    numbers = [name for name in (last[0] if last else {}) if name not in ("seed", "step", "t")]
    metrics = {name: sum(float(row[name]) for row in last) / len(last) for name in numbers}
    return Record(
        status=ending.status,
        cause=ending.cause,
        name=request.config["name"],
        hash=directory.path.name,
        science=request.science,
        seeds=module.seeds,
        step=module.step,
        steps=module.T,
        wall_seconds=time.monotonic() - ending.clock,
        started=ending.started,
        ended=utc_now(),
        stopped=tuple(Stop(d.seed, d.step, d.t, d.loss, d.K) for d in module.diverged.values()),
        metrics=metrics,
        flops=module.flops_per_step() * module.step,
        overrides=tuple(request.overrides),
        device=torch.cuda.get_device_name()
        if request.device == "cuda"
        else f"cpu, {platform.machine()}, {os.cpu_count()} cores",
        mirror_problem=mirror.problem,
        **provenance(Path(__file__).parent),
    )
