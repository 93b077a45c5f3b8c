"""`train.py -m … dry_run=true`: what a sweep would do and cost, from a few steps of each kind of run, grouped as a worker would group them.

Nothing is written into the folder of the runs.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from featscale.cli.runs import duration
from featscale.numerics.grids import log_steps
from featscale.runs.directory import RunDirectory, should_run
from featscale.runs.identity import config_hash, flattened, run_path
from featscale.runs.manifest import Planned

# What does not change what a step costs.
SAME_COST = ("seed", "steps", "rows_per_decade")
WIDTHS = (6, 8, 12, 9, 10, 0)


@dataclass(frozen=True)
class Cost:
    """What several groups of equal kinds of runs cost.

    sample, one of the groups. runs, in all, of which at most `together` make their steps together. seconds and flops, of all. memory, of a worker,
    in bytes.
    """

    sample: Sequence[Planned]
    runs: int
    together: int
    seconds: float
    flops: float
    memory: float


def run(planned: Sequence[Planned]) -> None:
    """Print what the runs that are left would take. Raises: BadInput for parts that cannot be built."""
    if not planned:
        return
    launcher, trainer = planned[0].config["launcher"], planned[0].config["trainer"]
    elsewhere = "tasks" in launcher
    share = launcher["processes"] if elsewhere else trainer["workers"]
    left = [one for one in planned if should_run(_directory(one), bool(one.config["retry_failed"])).trains]
    lines = [["runs", "together", "seconds each", "memory", "FLOPs each", "what differs"]]
    costs: list[Cost] = []
    if left:
        costs = _costs(left, share)
        for cost, names in zip(costs, _varying([cost.sample for cost in costs]), strict=True):
            each = [f"{cost.seconds / cost.runs:.3g}", f"{cost.memory / 1e9:.2f} GB", f"{cost.flops / cost.runs:.3g}"]
            lines.append([str(cost.runs), str(cost.together), *each, names])
    for line in lines:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, WIDTHS, strict=True)).rstrip() + "\n")
    workers = launcher["tasks"] * launcher["processes"] if elsewhere else trainer["workers"]
    sys.stdout.write(f"{summary(planned, left, costs, workers)}\n")


def summary(planned: Sequence[Planned], left: Sequence[Planned], costs: Sequence[Cost], workers: int) -> str:
    """The sweep in a sentence."""
    total, flops = sum(cost.seconds for cost in costs), sum(cost.flops for cost in costs)
    memory = max((cost.memory for cost in costs), default=0.0)
    already = Counter(one.hash for one in planned)
    return (
        f"{len(left)} of {len(already)} runs are left: about {duration(total)} of work, {duration(total / workers)} with {workers} "
        f"worker{'s' if workers > 1 else ''}, {flops:.3g} FLOPs; at most {memory / 1e9:.2f} GB a worker. Nothing was written."
    )


def _costs(left: Sequence[Planned], share: int) -> list[Cost]:
    """The costs of the groups of each composition, when a worker has its part, 1/share, of the runs; those of the same kinds as one."""
    began = time.perf_counter()
    from featscale.cli.compose import part
    from featscale.training.worker import Parts

    parts = Parts(part)
    found: dict[tuple[str, ...], list[Sequence[Planned]]] = {}
    for group in groups(left, parts, share):
        found.setdefault(tuple(sorted(map(_kind, group))), []).append(group)
    # What a worker must import and load as well.
    begun = time.perf_counter() - began
    costs: dict[frozenset[str], Cost] = {}
    loaded: set[str] = set()
    for kinds, alike in found.items():
        # A worker keeps its data from one run to the next.
        data = config_hash({"data": alike[0][0].config["data"]})
        cost = _cost(alike, parts, begun if not costs else 0.0, first=data not in loaded)
        loaded.add(data)
        before = costs.get(frozenset(kinds))
        costs[frozenset(kinds)] = cost if before is None else _sum(before, cost)
    return list(costs.values())


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(
        sample=max(one.sample, other.sample, key=len),
        runs=one.runs + other.runs,
        together=max(one.together, other.together),
        seconds=one.seconds + other.seconds,
        flops=one.flops + other.flops,
        memory=max(one.memory, other.memory),
    )


def groups(left: Sequence[Planned], parts: Any, share: int) -> Iterator[Sequence[Planned]]:
    """The runs as :class:`featscale.training.worker.Worker` takes them together.

    Arguments: parts, a :class:`featscale.training.worker.Parts`. share, the number of workers.
    """
    from featscale.training.orders import Policy
    from featscale.training.worker import joining_key

    made: dict[str, tuple[tuple[str, ...], int]] = {}
    fitting: dict[str, list[Planned]] = {}
    most: dict[str, int] = {}
    for one in left:
        kind = _kind(one)
        if kind not in made:
            module, _ = parts.module(_request(one))
            made[kind] = (module.stackable, module.together() if module.stackable else 1)
        stackable, together = made[kind]
        key = joining_key(one, stackable) if together > 1 else one.hash
        fitting.setdefault(key, []).append(one)
        most.setdefault(key, min(together, Policy().most))
    for key, runs in fitting.items():
        rest = runs
        while rest:
            size = min(most[key], -(-len(rest) // share))
            yield rest[:size]
            rest = rest[size:]


def _cost(alike: Sequence[Sequence[Planned]], parts: Any, begun: float, first: bool) -> Cost:
    """What groups of one composition cost, from a few steps of the first, and runs of one step of its first run.

    Arguments: begun, seconds that were spent before. first, whether the first of their data.
    """
    from featscale.training.estimate import estimate, overhead

    group = alike[0]
    beside = overhead(group[0], parts.build)
    made = [parts.module(_request(one)) for one in group]
    modules = [module for module, _ in made]
    one = estimate(modules, made[0][1], _request(group[0]).device)
    seconds, flops = begun + (beside.once if first else 0.0), 0.0
    for each in alike:
        T = int(each[0].config["steps"])
        rows = len(log_steps(T, int(each[0].config["rows_per_decade"])))
        # A run of one step has a step and two rows.
        seconds += len(each) * beside.seconds + (T - 1) * one.seconds_per_step + (rows - 2) * one.seconds_per_row
        flops += T * sum(module.flops_per_step() for module in modules)
    return Cost(group, sum(map(len, alike)), one.together, seconds, flops, float(one.memory_bytes))


def _request(run: Planned) -> Any:
    from featscale.training.run import Request

    return Request(run.config, run.science)


def _kind(run: Planned) -> str:
    """Equal for runs whose steps cost the same."""
    return config_hash({key: run.science[key] for key in run.science if key not in SAME_COST})


def _directory(run: Planned) -> RunDirectory:
    return RunDirectory(run_path(run.config["paths"]["runs"], run.config["name"], run.hash))


def _varying(kinds: Sequence[Sequence[Planned]]) -> list[str]:
    """Of each group, the entries in which the groups or their members differ, with all their values."""
    entries = [[flattened(dict(run.science)) for run in group] for group in kinds]
    keys = dict.fromkeys(key for group in entries for one in group for key in one if key not in SAME_COST)
    values = [
        {key: list(dict.fromkeys(str(one[key]) for one in group if key in one)) for key in keys} for group in entries
    ]
    vary = [
        key
        for key in keys
        if len({tuple(group[key]) for group in values}) > 1 or any(len(group[key]) > 1 for group in values)
    ]
    return [" ".join(f"{key}={','.join(group[key])}" for key in vary if group[key]) for group in values]
