"""`train.py -m …`: fill the manifest of the sweep, then train what is left of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from featscale.cli import compose, dry, engines, expand
from featscale.cli.crew import Crew, cores
from featscale.cli.worker import work
from featscale.errors import BadInput
from featscale.runs.directory import should_run
from featscale.runs.manifest import Manifest, Planned, plan
from featscale.training.orders import Policy

MULTIRUN = ("-m", "--multirun")


def asked(arguments: Sequence[str]) -> list[str] | None:
    """The overrides of a sweep in the arguments of train.py; None for a single run, or where Hydra's own flags or launchers are asked for."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    ours = bool(flags) and set(flags) <= set(MULTIRUN)
    foreign = any(override.startswith(("hydra/launcher", "hydra/sweeper")) for override in overrides)
    return overrides if ours and not foreign else None


def run(conf: Path, overrides: Sequence[str]) -> int:
    """Fill the manifests that `overrides` ask for and train what is left of those runs.

    Returns: 0, 1 when a run failed, 2 for bad input, which is told run by run and lets the rest go on, 128 + the signal when asked to stop.
    """
    found: dict[str, int] = {}
    trouble = compose.in_one_line(_run, conf, overrides, found)
    worst = {"bad input": 2, "no space": 1, "running": 1}.get(trouble or "", 0)
    stopped = [code for code in found.values() if code > 2]
    return stopped[0] if stopped else max([worst, *found.values()])


def expanded(conf: Path, overrides: Sequence[str]) -> tuple[list[Planned], int]:
    """The runs that are asked for, and how many are bad input, each told in a line on stderr.

    Raises: BadInput where the overrides as a whole are.
    """
    planned: list[Planned] = []
    refused = 0
    for run in expand.runs(conf, overrides):
        if isinstance(run, BadInput):
            sys.stderr.write(f"error: {run}\n")
            refused += 1
        else:
            planned.append(run)
    return planned, refused


def fill(conf: Path, overrides: Sequence[str]) -> tuple[list[Manifest], list[Planned], int]:
    """Write the manifests of a sweep.

    Returns: the manifests, the runs that were asked for, and how many of those are bad input, each told in a line on stderr.
    Raises: BadInput where the overrides as a whole are; OSError where a folder cannot be written.
    """
    planned, refused = expanded(conf, overrides)
    by_root: dict[str, list[Planned]] = {}
    for run in planned:
        by_root.setdefault(str(run.config["paths"]["runs"]), []).append(run)
    sweeps = [manifest for root, runs in by_root.items() for manifest in plan(root, runs)]
    return sweeps, planned, refused


def _run(conf: Path, overrides: Sequence[str], found: dict[str, int]) -> None:
    if any(override.replace(" ", "").lower() == "dry_run=true" for override in overrides):
        planned, refused = expanded(conf, overrides)
        found["refused"] = 2 if refused else 0
        dry.run(planned)
        return
    sweeps, planned, refused = fill(conf, overrides)
    found["refused"] = 2 if refused else 0
    if not planned:
        return
    if planned[0].config["launcher"]["engine"] != "local":
        found["work"] = _start(sweeps, planned)
        return
    trainer = planned[0].config["trainer"]
    number, progress = trainer["workers"], trainer["progress"]
    threads = trainer["threads"] or max(1, cores() // number)
    live = progress is True or (progress == "auto" and sys.stderr.isatty())
    only = frozenset(run.hash for run in planned)
    policy = Policy(retry_failed=bool(planned[0].config["retry_failed"]), share=number, only=only)
    result, found["work"] = work(sweeps, Crew(number, threads), policy, live)
    # Whoever typed them has been told; a worker that comes later need not be.
    for sweep in sweeps:
        sweep.remove({run.hash for run in planned if f"{sweep.folder.name}/{run.hash}" in result["refused"]})


def _start(sweeps: Sequence[Manifest], planned: Sequence[Planned]) -> int:
    """Start workers on the engine that is asked for; they train all that is left in the manifests."""
    config = planned[0].config
    retry = bool(config["retry_failed"])
    left = {
        sweep.folder: sum(should_run(sweep.directory(run), retry).trains for run in sweep.read()) for sweep in sweeps
    }
    folders = [folder for folder, runs in left.items() if runs]
    if not folders:
        sys.stderr.write("nothing is left to train\n")
        return 0
    if config["launcher"]["engine"] == "none":
        for folder in folders:
            sys.stderr.write(
                f"{folder.name}: {left[folder]} runs wait in the manifest for `featscale worker {folder}`\n"
            )
        return 0
    return engines.start(config["launcher"], folders, max(left.values()), retry)
