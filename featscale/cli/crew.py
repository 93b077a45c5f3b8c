"""Several workers on one machine: each a process with its device and its threads, started again when it is killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featscale.cli.targets import permitted
from featscale.errors import BadInput, require
from featscale.runs.manifest import Manifest, Planned, manifests

if TYPE_CHECKING:
    from featscale.training.orders import Event, Policy
    from featscale.training.preemption import Preemption

# What sets the number of threads of the libraries that compute; read when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Deaths in a row, for each process of a crew, without a word from any: something else is wrong.
DEATHS = 5
TELL = Callable[["Event"], None]


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and what each has.

    processes >= 1, in all. threads >= 1 of each. gpus, the devices that they share in turn, named as CUDA_VISIBLE_DEVICES names them; none: the
    workers see what this process sees.
    """

    processes: int = 1
    threads: int = 1
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.processes >= 1, "processes", self.processes, "an integer >= 1")
        require(self.threads >= 1, "threads", self.threads, "an integer >= 1")

    def environment(self, index: int) -> dict[str, str]:
        """The variables of worker `index`."""
        variables = dict.fromkeys(THREADS, str(self.threads))
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[index % len(self.gpus)]
        return variables


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_here(sweeps: Sequence[Manifest], policy: Policy, preemption: Preemption, tell: TELL) -> None:
    """Work on `sweeps` in this process. Raises: as :meth:`featscale.training.worker.Worker.run`."""
    from featscale.cli.compose import part
    from featscale.training.worker import Worker

    Worker(sweeps, part, preemption, policy, tell).run()


@dataclass
class _Mate:
    """A process of the crew, and the pipe through which it tells; each has its own, so that none can hold another up when it is killed."""

    index: int
    process: Any
    pipe: Connection
    told: bool = False


@dataclass
class Pool:
    """Workers in processes of their own, from their start to the last one's end.

    Arguments: folders, of the sweeps. crew and policy, how they work. preemption, whose signal is passed on; then all save and end. tell,
    called with each event of any worker.
    """

    folders: Sequence[Path]
    crew: Crew
    policy: Policy
    preemption: Preemption
    tell: TELL
    mates: list[_Mate] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    deaths: int = 0
    told_to_stop: bool = False

    def run(self) -> None:
        """Work until nothing is left, starting those again that are killed.

        Raises: Preempted when asked to stop, after all have ended; OSError for what a worker could not write.
        """
        self.context = self._context()
        for index in range(self.crew.processes):
            self._start(index)
        while self.mates:
            waited: list[Any] = [mate.pipe for mate in self.mates]
            for pipe in wait(waited, timeout=0.5):
                self._hear(next(mate for mate in self.mates if mate.pipe is pipe))
            if self.preemption.asked() and not self.told_to_stop:
                self._stop()
        self.preemption.check("all workers have saved")
        if self.problems:
            raise OSError(None, self.problems[0])

    def _context(self) -> Any:
        """Forked from a process that has imported everything once; on a GPU each imports for itself, for CUDA does not survive a fork."""
        if self.crew.gpus:
            return multiprocessing.get_context("spawn")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["featscale.cli.preload", *modules(self.folders)])
        return context

    def _start(self, index: int) -> None:
        ours, theirs = self.context.Pipe(duplex=False)
        variables = self.crew.environment(index)
        arguments = ([str(folder) for folder in self.folders], self.policy, variables, theirs)
        # Read by a process that is spawned, and by the one that forks when it starts: before anything is imported.
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            process = self.context.Process(target=_mate, args=arguments, daemon=False)
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        theirs.close()
        self.mates.append(_Mate(index, process, ours))

    def _hear(self, mate: _Mate) -> None:
        try:
            message = mate.pipe.recv()
        except (EOFError, OSError):
            self._bury(mate)
            return
        if isinstance(message, str):
            self.problems.append(message)
            self._stop()
        else:
            mate.told, self.deaths = True, 0
            self.tell(message)

    def _bury(self, mate: _Mate) -> None:
        """A process has ended; one that was killed is followed by another."""
        mate.pipe.close()
        mate.process.join()
        self.mates.remove(mate)
        code = mate.process.exitcode
        if code == 0 or self.told_to_stop or self.preemption.asked():
            return
        self.deaths += 1
        if self.deaths > DEATHS * self.crew.processes:
            self.problems.append(f"{self.deaths} workers in a row ended with code {code} and did nothing")
            self._stop()
            return
        sys.stderr.write(f"worker {mate.index} was killed (code {code}); another takes its place\n")
        self._start(mate.index)

    def _stop(self) -> None:
        self.told_to_stop = True
        for mate in self.mates:
            mate.process.terminate()


def modules(folders: Sequence[Path]) -> list[str]:
    """The modules that the runs in `folders` are made of, by the `_target_` of their parts."""
    found: dict[str, None] = {}
    for folder in folders:
        for run in Manifest(folder).read():
            found.update((str(target).rpartition(".")[0], None) for target in _targets(run))
    return [module for module in found if module]


def _targets(run: Planned) -> list[str]:
    parts = [entry for entry in run.config.values() if isinstance(entry, Mapping)]
    return [part["_target_"] for part in parts if permitted(part.get("_target_"))]


def _mate(folders: list[str], policy: Policy, variables: dict[str, str], pipe: Connection) -> None:
    """What a process of the crew does."""
    os.environ.update(variables)
    import torch

    from featscale.training.checkpoint import CannotSave
    from featscale.training.preemption import Preempted, Preemption

    def tell(event: Event) -> None:
        # Where nobody listens any more the parent is gone, and the worker stops at its next pause, having saved.
        with suppress(OSError):
            pipe.send(event)

    torch.set_num_threads(int(variables[THREADS[0]]))
    parent = multiprocessing.parent_process()
    try:
        with Preemption(orphaned=lambda: parent is not None and not parent.is_alive()) as preemption:
            work_here([each for folder in folders for each in manifests(Path(folder))], policy, preemption, tell)
    except Preempted as stop:
        sys.exit(stop.exit_code)
    except (CannotSave, BadInput, OSError) as error:
        reason = f"{error.filename or 'file'}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        with suppress(OSError):
            pipe.send(reason)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
