"""What a run costs beside its steps: thousands of trivial runs with our workers, and with Hydra's basic launcher in the same session.

    python tests/benchmarks/bench_sweeps.py [RUNS] [HYDRA_RUNS]

The goal is 20 ms a run for 2,000 runs, of wall time on a machine that does nothing else; processor time is beside it, which a busy machine
inflates less. Each run makes one step of the smallest model and leaves its whole folder: configuration, curve and
record, all of them synced to the disk. The cost of a run is the slope between two sweeps of different length, so that imports, of
several seconds, count for neither; the whole time is beside it. Hydra's launcher is measured on fewer runs and costs the same each.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featscale.cli.train import door

TRIVIAL = [
    "-m",
    "model.N=4",
    "data.M=8",
    "steps=1",
    "logger=none",
    "trainer.accelerator=cpu",
]
FEW = 10
WAYS = {
    "one worker": [],
    "two workers": ["trainer.workers=2"],
    "Hydra's basic launcher": ["hydra/launcher=basic"],
}


def seconds(count: int, overrides: list[str]) -> tuple[float, float]:
    """Wall and processor time of a fresh sweep of `count` runs, which must all be done."""
    with tempfile.TemporaryDirectory() as folder:
        # An offline W&B run, which WANDB_MODE in the environment would make of each, costs more than all else.
        environment = os.environ | {"FEATSCALE_RUNS": folder, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        command = [
            sys.executable,
            str(door()),
            *TRIVIAL,
            f"seed=range({count})",
            *overrides,
        ]
        start, used = time.perf_counter(), processor()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        spent = time.perf_counter() - start, processor() - used
        assert len(list(Path(folder).glob("*/*/record.json"))) == count
    return spent


def processor() -> float:
    """Processor time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure each way and print the cost of a run."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    few = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    for name, overrides in WAYS.items():
        count = few if "Hydra" in name else many
        short, long = seconds(FEW, overrides), seconds(count, overrides)
        wall, cpu = (1e3 * (b - a) / (count - FEW) for a, b in zip(short, long, strict=True))
        print(
            f"{name:<24}{count:>6} runs {long[0]:7.1f} s {wall:8.2f} ms a run, {cpu:8.2f} ms of processor",
            flush=True,
        )


if __name__ == "__main__":
    main()
