"""`featscale demo`: the seed experiments from nothing to a measured exponent beside the predicted one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml

from featscale.cli.figure import RunsFolder, show
from featscale.cli.output import Json
from featscale.cli.train import door

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
    experiments = (*EXPERIMENTS, IMAGES) if _has_mnist() else EXPERIMENTS
    if IMAGES not in experiments:
        sys.stderr.write("MNIST: no archives in FEATSCALE_DATA or ./data, so the image panel is left out\n")
    codes = _train(experiments, runs)
    show(NAME, runs, output, as_json)
    raise typer.Exit(1 if any(codes) else 0)


def _has_mnist() -> bool:
    folder = Path(os.environ.get("FEATSCALE_DATA", "data")) / "MNIST" / "raw"
    return any(folder.glob("train-images-idx3-ubyte*"))


def _train(experiments: tuple[str, ...], runs: Path) -> list[int]:
    """Run the sweeps, as many side by side as there are cores (at most two), with one progress line; returns exit codes."""
    total = sum(_size(door().parent / "conf" / "experiment" / f"{name}.yaml") for name in experiments)
    waiting, running, codes = list(experiments), {}, []
    with _progress(total) as (update, console):
        while waiting or running:
            while waiting and len(running) < min(2, os.cpu_count() or 1):
                name = waiting.pop(0)
                running[name] = _start(name, runs)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                process = running.pop(name)
                codes.append(process.returncode)
                if error := process.communicate()[1].strip():
                    console.print(f"{name}: {error}", markup=False)
            update(_done(runs))
            time.sleep(POLL)
    return codes
