"""`train.py -m … dry_run=true`: what a sweep would do and cost, from a few steps of each kind of run; nothing is written."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from featscale.cli.runs import duration
from featscale.runs.directory import RunDirectory, should_run
from featscale.runs.identity import config_hash, flattened, run_path
from featscale.runs.manifest import Planned

# What does not change what a step costs.
SAME_COST = ("seed", "steps", "rows_per_decade")


def run(planned: Sequence[Planned]) -> None:
    """Print what the runs that are left would take. Raises: BadInput for parts that cannot be built."""
    if not planned:
        return
    launcher = planned[0].config["launcher"]
    workers = planned[0].config["trainer"]["workers"]
    if launcher["engine"] != "local":
        workers = launcher["tasks"] * launcher["processes"]
    left = [one for one in planned if should_run(_directory(one), bool(one.config["retry_failed"])).trains]
    kinds: dict[str, list[Planned]] = {}
    for one in left:
        kinds.setdefault(
            config_hash({key: one.science[key] for key in one.science if key not in SAME_COST}), []
        ).append(one)
    costs = [_cost(runs) for runs in kinds.values()]
    differs = _varying([runs[0] for runs in kinds.values()])
    lines = [["runs", "seconds each", "memory", "FLOPs each", "what differs"]]
    for runs, cost, names in zip(kinds.values(), costs, differs, strict=True):
        seconds, flops = cost["seconds"] / len(runs), cost["flops"] / len(runs)
        lines.append([str(len(runs)), f"{seconds:.3g}", f"{cost['memory'] / 1e9:.2f} GB", f"{flops:.3g}", names])
    for line in lines:
        sys.stdout.write(
            "  ".join(cell.ljust(width) for cell, width in zip(line, (6, 12, 9, 10, 0), strict=True)).rstrip() + "\n"
        )
    sys.stdout.write(f"{summary(planned, left, costs, workers)}\n")


def summary(
    planned: Sequence[Planned], left: Sequence[Planned], costs: Sequence[Mapping[str, float]], workers: int
) -> str:
    """The sweep in a sentence."""
    total, flops = (sum(cost[key] for cost in costs) for key in ("seconds", "flops"))
    memory = max((cost["memory"] for cost in costs), default=0.0)
    already = Counter(one.hash for one in planned)
    return (
        f"{len(left)} of {len(already)} runs are left: about {duration(total)} of work, {duration(total / workers)} with {workers} "
        f"worker{'s' if workers > 1 else ''}, {flops:.3g} FLOPs; at most {memory / 1e9:.2f} GB a worker. Nothing was written."
    )


def _cost(runs: Sequence[Planned]) -> dict[str, float]:
    """Seconds and FLOPs of all `runs`, of one kind, and memory of one, from a few steps of the first."""
    from featscale.cli.compose import part
    from featscale.training.estimate import estimate
    from featscale.training.run import Request
    from featscale.training.worker import Parts

    request = Request(runs[0].config, runs[0].science)
    module, data = Parts(part).module(request)
    one = estimate(module, data, request.device)
    longer = sum(int(run.config["steps"]) for run in runs)
    fixed = len(runs) * (one.setup_seconds + one.rows * one.seconds_per_row)
    return {
        "seconds": fixed + longer * one.seconds_per_step,
        "flops": longer * one.flops_per_step,
        "memory": float(one.memory_bytes),
    }


def _directory(run: Planned) -> RunDirectory:
    return RunDirectory(run_path(run.config["paths"]["runs"], run.config["name"], run.hash))


def _varying(kinds: Sequence[Planned]) -> list[str]:
    """Of each kind, the entries in which the kinds differ."""
    entries = [flattened(dict(run.science)) for run in kinds]
    keys = dict.fromkeys(key for one in entries for key in one if key not in SAME_COST)
    vary = [key for key in keys if len({str(one.get(key)) for one in entries}) > 1]
    return [" ".join(f"{key}={one[key]}" for key in vary if key in one) for one in entries]
