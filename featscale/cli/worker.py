"""`featscale worker`: train the runs of a sweep, beside any number of other workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from featscale.cli.board import Board, outcome
from featscale.cli.crew import Crew, Pool, cores, work_here
from featscale.cli.output import Json, emit
from featscale.errors import BadInput, require
from featscale.runs.directory import Decision, should_run
from featscale.runs.manifest import Manifest, manifests
from featscale.training.orders import Event, Policy
from featscale.training.preemption import Preempted, Preemption


def worker(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="runs/NAME of a sweep, or runs with several of them.")],
    processes: Annotated[
        int | None, typer.Option(help="Workers; default: one, or one for each place on a GPU.")
    ] = None,
    gpus: Annotated[str, typer.Option(help="GPUs to share out, as CUDA_VISIBLE_DEVICES names them: 0,1,3.")] = "",
    per_gpu: Annotated[int, typer.Option(help="Workers on each GPU.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a worker; default: its part of the cores.")
    ] = None,
    together: Annotated[int, typer.Option(help="The most runs trained side by side in one worker; 1: never.")] = 64,
    ddp: Annotated[
        bool, typer.Option("--ddp", help="Train each run on all processes that torchrun or srun started.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option(help="Train failed and damaged runs again, from the start.")] = False,
    as_json: Json = False,
) -> None:
    """Train what is left of a sweep: finished runs are skipped, interrupted ones go on from their checkpoint.

    Start as many as you like, on as many machines as share the folder; each run is trained by one of them. SIGTERM, SIGUSR2 and
    Ctrl-C save at the next step and end with 128 + the signal; the same command goes on. A worker that is killed is replaced,
    and another takes its run over. Exit code: 0; 1 if a run failed; 2 if a run is bad input.

    Example: featscale worker runs/width --processes 4
    """
    if ddp:
        team_work(folder, processes, gpus, retry_failed, as_json)
        return
    if "WORLD_SIZE" in os.environ:
        # Not of srun: its tasks may well be workers, each with runs of its own.
        from featscale.training.place import alone

        alone("a worker without --ddp")
    devices = tuple(gpu for gpu in gpus.split(",") if gpu)
    require(per_gpu >= 1, "per-gpu", per_gpu, "an integer >= 1")
    require(together >= 1, "together", together, "an integer >= 1")
    number = processes if processes is not None else max(1, len(devices) * per_gpu)
    crew = Crew(number, threads if threads is not None else max(1, cores() // max(number, 1)), devices)
    sweeps = manifests(folder)
    result, code = work(sweeps, crew, Policy(retry_failed, together, number), live=sys.stderr.isatty() and not as_json)
    emit(result, as_json, lambda _: None)
    raise typer.Exit(code)


def team_work(folder: Path, processes: int | None, gpus: str, retry_failed: bool, as_json: bool) -> None:
    """Train each run of a sweep on all processes that torchrun or srun started. Raises: as :func:`worker`."""
    from featscale.cli.compose import part
    from featscale.training.ddp import TeamWorker
    from featscale.training.place import HOW, Place
    from featscale.training.team import Team, TeamBroken
    from featscale.training.worker import silent

    place = Place.found(os.environ)
    if place is None:
        raise BadInput("ddp", "one process", f"several, started by torchrun or srun: {HOW}")
    require(processes in (None, 1), "processes", processes, "1 with --ddp: torchrun or srun starts the processes")
    require(not gpus, "gpus", gpus, "none with --ddp: each process takes the GPU of its local rank")
    sweeps = manifests(folder)
    steps = {f"{sweep.folder.name}/{run.hash}": int(run.config["steps"]) for sweep in sweeps for run in sweep.read()}
    code = None
    board = Board(steps, False)
    # Only the leader speaks of the runs; what goes wrong is said by whom it befalls.
    with Preemption() as preemption, board if place.leads else nullcontext():
        try:
            with Team(place) as team:
                tell = board.tell if place.leads else silent
                TeamWorker(sweeps, part, team, preemption, Policy(retry_failed), tell).run()
        except Preempted as stop:
            if place.leads:
                sys.stderr.write(f"stopped by {stop}; the same command goes on from there\n")
            code = stop.exit_code
        except TeamBroken as error:
            sys.stderr.write(f"error: rank {place.rank}: {error}\n")
            code = 1
    if place.leads:
        result = {"runs": len(steps), "status": dict(board.counts()), "interrupted": code is not None}
        emit(result, as_json, lambda _: None)
    raise typer.Exit(outcome(board) if code is None else code)


def work(sweeps: Sequence[Manifest], crew: Crew, policy: Policy, live: bool) -> tuple[dict[str, Any], int]:
    """Train what is left of `sweeps`, in this process if the crew is of one.

    Returns: the result, status → number of runs, what this command trained, seconds; and the exit code.
    Raises: OSError for a folder that cannot be written.
    """
    runs = [(sweep.folder.name, run) for sweep in sweeps for run in sweep.read()]
    asked = [(name, run) for name, run in runs if policy.only is None or run.hash in policy.only]
    steps = {f"{name}/{run.hash}": int(run.config["steps"]) for name, run in asked}
    began, code = time.monotonic(), None
    with Preemption() as preemption, Board(steps, live) as board:
        left = frozenset(unfinished(sweeps, policy, board))
        policy = replace(policy, only=left)
        try:
            if not left:
                pass
            elif crew.processes == 1 and not crew.gpus:
                work_here(sweeps, policy, preemption, board.tell)
            else:
                Pool([sweep.folder for sweep in sweeps], crew, policy, preemption, board.tell).run()
        except Preempted as stop:
            sys.stderr.write(f"stopped by {stop}; the same command goes on from there\n")
            code = stop.exit_code
    refused = {run: event.cause for run, event in board.latest.items() if event.status == "refused"}
    result = {
        "runs": len(steps),
        "status": dict(board.counts()),
        "trained": dict(board.ended()),
        "refused": refused,
        "seconds": time.monotonic() - began,
        "interrupted": code is not None,
    }
    return result, outcome(board) if code is None else code


def unfinished(sweeps: Sequence[Manifest], policy: Policy, board: Board) -> Iterator[str]:
    """The hashes of the runs that are to be trained; of the others the board is told. Before anything heavy is imported."""
    for sweep in sweeps:
        for run in sweep.read():
            directory = sweep.directory(run)
            if policy.only is not None and run.hash not in policy.only:
                continue
            try:
                decision = should_run(directory, policy.retry_failed)
            except BadInput as error:
                board.tell(Event(f"{sweep.folder.name}/{run.hash}", "refused", cause=str(error)))
                continue
            if decision.trains or decision is Decision.BUSY:
                # Who has it may die while we work.
                yield run.hash
            else:
                board.tell(Event(f"{sweep.folder.name}/{run.hash}", str(decision)))
