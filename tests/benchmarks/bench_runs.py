"""Listing runs: `featscale runs list` and `status` over 10,000 finished runs, asked for as a user does.

    python tests/benchmarks/bench_runs.py [RUNS]

The goal is 3 s for 10,000. The peer is `find -name record.json | xargs cat`: what any program must at least read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featscale.runs.identity import config_hash, run_path
from featscale.runs.record import Record


def fill(root: Path, count: int) -> None:
    """Put finished runs of one sweep on the disk."""
    for seed in range(count):
        science = {"model": {"N": 2 ** (seed % 10), "depth": 3}, "data": {"B": 32, "alpha": 1.5}, "seed": seed}
        path = run_path(root, "sweep", config_hash(science))
        path.mkdir(parents=True)
        record = Record(
            status="done",
            name="sweep",
            hash=path.name,
            science=science,
            seeds=(seed,),
            step=1000,
            steps=1000,
            wall_seconds=1.0,
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:01+00:00",
            metrics={"loss": 1 / (1 + seed)},
            flops=1e9,
            versions={"python": "3.11", "torch": "2.14"},
            git={"commit": "0" * 40, "dirty": False, "diff": None},
        )
        (path / "record.json").write_text(record.to_json())


def seconds(command: list[str] | str) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, shell=isinstance(command, str))
    return time.perf_counter() - start


def main() -> None:
    """Fill a folder, list it three times each way, print the medians."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), count)
        featscale = str(Path(sys.executable).with_name("featscale"))
        commands = {
            "find | xargs cat": f"find {folder} -name record.json -print0 | xargs -0 cat",
            "runs list": [featscale, "runs", "list", folder],
            "runs list --json": [featscale, "runs", "list", folder, "--json"],
            "runs status": [featscale, "runs", "status", folder],
        }
        for name, command in commands.items():
            times = sorted(seconds(command) for _ in range(3))
            print(f"{name:<18}{count:>7} runs {times[1]:6.2f} s")


if __name__ == "__main__":
    main()
