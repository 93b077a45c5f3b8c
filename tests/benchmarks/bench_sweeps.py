"""What a run costs beside its steps: thousands of trivial runs with our workers, and with Hydra's basic launcher in the same session.

    python tests/benchmarks/bench_sweeps.py [RUNS] [HYDRA_RUNS]

The goal is 20 ms a run for 2,000 runs. Each run makes one step of the smallest model and leaves its whole folder: configuration, curve and
record, all of them synced to the disk. The cost of a run is the slope between two sweeps of different length, so that imports, of
several seconds, count for neither; the whole time is beside it. Hydra's launcher is measured on fewer runs and costs the same each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featscale.cli.train import door

TRIVIAL = ["-m", "model.N=4", "data.M=8", "steps=1", "logger=none", "trainer.accelerator=cpu"]
FEW = 10
WAYS = {
    "one worker": [],
    "two workers": ["trainer.workers=2"],
    "Hydra's basic launcher": ["hydra/launcher=basic"],
}


def seconds(count: int, overrides: list[str]) -> float:
    """Wall time of a fresh sweep of `count` runs, which must all be done."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FEATSCALE_RUNS": folder, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(door()), *TRIVIAL, f"seed=range({count})", *overrides]
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        spent = time.perf_counter() - start
        assert len(list(Path(folder).glob("*/*/record.json"))) == count
    return spent


def main() -> None:
    """Measure each way and print the cost of a run."""
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    few = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    for name, overrides in WAYS.items():
        count = few if "Hydra" in name else many
        short, long = seconds(FEW, overrides), seconds(count, overrides)
        slope = 1e3 * (long - short) / (count - FEW)
        print(f"{name:<24}{count:>6} runs {long:7.1f} s in all {slope:8.2f} ms a run", flush=True)


if __name__ == "__main__":
    main()
