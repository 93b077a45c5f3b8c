"""Slurm: workers as job arrays, written as a plain batch script, so that nothing is pickled and every signal is the worker's.

A job that is told to stop, before its time limit (SIGUSR2) or by a better partition (SIGTERM), saves at the next step and goes back into the
queue; one that is cancelled does not. What is left of the sweep is in the manifest, whatever becomes of the jobs.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featscale.cli.engines import command
from featscale.errors import BadInput, require

# Slurm's default, where it does not say.
MAX_ARRAY_SIZE = 1001
LOGS = "slurm"

# The shell stays, so that it can send the job back; it passes signals on and waits until the worker has saved. A worker that was asked to stop
# ends with 128 + the signal. Only a running job is sent back by us: one that was preempted is in the queue already, and one that was cancelled
# (its state says so) is not wanted any more.
BODY = """
{setup}
{worker} &
worker=$!
trap 'kill -TERM $worker' TERM
trap 'kill -USR2 $worker' USR2
trap 'kill -INT $worker' INT
while true; do
  wait $worker
  code=$?
  kill -0 $worker 2>/dev/null || break
done
case $code in 130|140|143)
  if scontrol show job --oneliner "$SLURM_JOB_ID" | grep -q 'JobState=RUNNING'; then
    scontrol requeue "$SLURM_JOB_ID"
    # Slurm ends this script; ending it now would be taken for a failure of the job.
    sleep 60
  fi
esac
exit $code
"""


@dataclass(frozen=True)
class Slurm:
    """What a job asks of Slurm; conf/launcher/slurm.yaml says what each is.

    Raises: BadInput that names the field.
    """

    processes: int = 1
    ranks: int = 1
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 4
    minutes: int = 60
    signal_seconds: int = 90
    partition: str | None = None
    options: Sequence[str] = ()
    setup: Sequence[str] = ()

    def __post_init__(self) -> None:
        require(self.memory_gb > 0, "launcher.memory_gb", self.memory_gb, "a number > 0")
        require(
            isinstance(self.minutes, int) and self.minutes >= 1, "launcher.minutes", self.minutes, "an integer >= 1"
        )
        seconds = self.signal_seconds
        fits = isinstance(seconds, int) and 1 <= seconds < min(60 * self.minutes, 65536)
        require(
            fits, "launcher.signal_seconds", seconds, f"an integer from 1, below the time limit of {self.minutes} min"
        )
        for option in self.options:
            one = isinstance(option, str) and option.startswith("-") and option.isprintable()
            require(one, "launcher.options", repr(option), "options of sbatch, each one line that starts with -")
        ranks = self.ranks
        require(isinstance(ranks, int) and ranks >= 1, "launcher.ranks", ranks, "an integer >= 1")
        if ranks > 1:
            require(self.processes == 1, "launcher.processes", self.processes, "1 with launcher.ranks")
            require(self.gpus <= 1, "launcher.gpus", self.gpus, "0 or 1 with launcher.ranks: of each rank")
        name = self.partition
        require(
            name is None or (str(name).isprintable() and " " not in str(name)), "launcher.partition", name, "a name"
        )

    def script(self, folder: Path, retry_failed: bool = False) -> str:
        """The batch script of a worker on the sweep in `folder`."""
        options = {
            "job-name": f"featscale-{folder.name}",
            "output": f"{folder.absolute()}/{LOGS}/%A_%a.log",
            "open-mode": "append",
            "ntasks": self.ranks if self.ranks > 1 else None,
            "cpus-per-task": self.cpus,
            "mem": f"{int(self.memory_gb * 1024)}M",
            "time": self.minutes,
            "signal": f"B:USR2@{self.signal_seconds}",
            "gpus-per-task": self.gpus or None,
            "partition": self.partition,
        }
        lines = [f"--{key}={_quoted(value)}" for key, value in options.items() if value is not None]
        header = "\n".join(f"#SBATCH {line}" for line in [*lines, "--requeue", *self.options])
        # srun does not take the job's processors a task by itself (Slurm 22.05), and passes the signals that it is sent on to its tasks.
        step = ["srun", f"--ntasks={self.ranks}", f"--cpus-per-task={self.cpus}"] if self.ranks > 1 else []
        worker = shlex.join([*step, *command(folder, asdict(self), retry_failed)])
        return f"#!/bin/bash\n{header}\n{BODY.format(setup=chr(10).join(self.setup), worker=worker)}"


def start(slurm: Slurm, folders: Sequence[Path], tasks: int, retry_failed: bool) -> int:
    """Submit `tasks` jobs for each sweep and say what was submitted; does not wait for them.

    Raises: BadInput without Slurm, or with Slurm's own words where it refuses.
    """
    require(shutil.which("sbatch") is not None, "launcher", "slurm", "a machine with sbatch; elsewhere launcher=local")
    for folder in folders:
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        script = slurm.script(folder, retry_failed)
        jobs = [_submit(script, size) for size in arrays(tasks, max_array_size())]
        sys.stderr.write(
            f"{folder.name}: {tasks} workers in Slurm's queue (job {', '.join(jobs)}); "
            f"featscale runs status {folder} shows how far they are, {folder / LOGS} what they say\n"
        )
    return 0


def arrays(tasks: int, most: int) -> Iterator[int]:
    """Sizes of job arrays of at most `most` that make `tasks` together.

    >>> list(arrays(2500, 1001))
    [1001, 1001, 498]
    """
    for begun in range(0, tasks, most):
        yield min(most, tasks - begun)


def max_array_size() -> int:
    """Slurm's MaxArraySize: array indices must be below it."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _said(["scontrol", "show", "config"]), re.MULTILINE)
    size = int(found[1]) if found else MAX_ARRAY_SIZE
    require(size >= 1, "launcher", "slurm", "a Slurm with job arrays (its MaxArraySize is 0)")
    return size


def _submit(script: str, size: int) -> str:
    """Submit an array; returns the job's number."""
    return _said(["sbatch", "--parsable", f"--array=0-{size - 1}"], script).strip().split(";")[0]


def _said(words: list[str], text: str = "") -> str:
    """What a command of Slurm prints. Raises: BadInput with its complaint."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadInput("launcher", words[0], f"what Slurm accepts ({' '.join(done.stderr.split())[:300]})")
    return done.stdout


def _quoted(value: Any) -> str:
    """A value for an #SBATCH line, which has quotes but no shell."""
    text = str(value)
    require('"' not in text and text.isprintable(), "paths.runs", text, "a folder without quotes for Slurm's scripts")
    return f'"{text}"' if " " in text else text
