"""`featscale demo`: the seed experiments from nothing to a measured exponent beside the predicted one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from featscale.cli.figure import RunsFolder, show
from featscale.cli.output import Json
from featscale.cli.train import door
from featscale.runs.claims import pulse
from featscale.runs.directory import RECORD
from featscale.runs.identity import config_hash, run_path

EXPERIMENTS = ("demo_gamma", "demo_regimes", "demo_bottleneck")
IMAGES = "demo_mnist"
NAME = "demo"
POLL = 0.5


def demo(
    runs: RunsFolder = Path("runs"),
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the figure goes.")] = Path("runs/demo.png"),
    as_json: Json = False,
) -> None:
    """Train the seed experiments through train.py, then print measured exponents beside theory and draw the figure.

    About four minutes on two cores; run again, it takes its results from the records. MNIST is included where FEATSCALE_DATA (or ./data)
    holds its archives.
    """
    experiments = (IMAGES, *EXPERIMENTS) if _has_mnist() else EXPERIMENTS
    if IMAGES not in experiments:
        sys.stderr.write("MNIST: no archives in FEATSCALE_DATA or ./data, so the image panel is left out\n")
    targets = {name: _directories(name, runs) for name in experiments}
    codes = _train(targets, runs)
    show(NAME, runs, output, as_json, {directory.name for group in targets.values() for directory in group})
    raise typer.Exit(1 if any(codes) else 0)


def _has_mnist() -> bool:
    folder = Path(os.environ.get("FEATSCALE_DATA", "data")) / "MNIST" / "raw"
    return any(folder.glob("train-images-idx3-ubyte*"))


def _train(targets: Mapping[str, set[Path]], runs: Path) -> list[int]:
    """Run the sweeps, as many side by side as there are cores (at most two), with one progress line; returns exit codes.

    Arguments: targets, the run directories that each experiment fills.
    """
    directories = set().union(*targets.values())
    codes: list[int] = []
    waiting = [name for name in targets if _done(targets[name]) < len(targets[name])]
    running: dict[str, subprocess.Popen[str]] = {}
    with _progress(len(directories)) as progress:
        while waiting or running:
            while waiting and len(running) < min(2, os.cpu_count() or 1):
                name = waiting.pop(0)
                running[name] = _start(name, runs)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                process = running.pop(name)
                codes.append(process.returncode)
                lines = process.communicate()[1].strip()
                if process.returncode:
                    progress.console.print(f"{name}: {lines}", markup=False)
            progress.update(progress.task_ids[0], completed=_done(directories))
            time.sleep(POLL)
    return codes


def _start(experiment: str, runs: Path) -> subprocess.Popen[str]:
    """One sweep as a process of its own, on one thread: small steps gain nothing from more."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [
        sys.executable,
        str(door()),
        "-m",
        f"experiment={experiment}",
        f"paths.runs={runs}",
        "trainer.progress=false",
    ]
    return subprocess.Popen(
        command, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _directories(experiment: str, runs: Path) -> set[Path]:
    """The run directories that the sweep of an experiment fills."""
    conf = door().parent / "conf"
    params = yaml.safe_load((conf / "experiment" / f"{experiment}.yaml").read_text())["hydra"]["sweeper"]["params"]
    choices = [[f"{key}={value}" for value in str(values).split(",")] for key, values in params.items()]
    # Hydra takes a fifth of a second to import: not for those who only list runs.
    from featscale.cli.compose import compose, science

    configs = [compose(conf, [f"experiment={experiment}", *one]) for one in itertools.product(*choices)]
    return {run_path(runs, cfg.name, config_hash(science(cfg))) for cfg in configs}


def _done(directories: set[Path]) -> float:
    """Runs finished, and the finished fraction of those that are running."""
    done = 0.0
    for directory in directories:
        if (directory / RECORD).exists():
            done += 1
        elif beat := pulse(directory).beat:
            done += beat["step"] / beat["steps"]
    return done


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """A bar on stderr with the time left; plain lines where nobody watches."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.1f}/{task.total:.0f} runs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=Console(file=sys.stderr)) as progress:
        progress.add_task("training", total=total)
        yield progress
