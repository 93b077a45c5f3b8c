"""What starts workers elsewhere: a sweep is its manifest, and an engine only runs `featscale worker` on it, here or there, once or often."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featscale.errors import BadInput, require

# The first two start nothing elsewhere.
ENGINES = ("local", "none", "slurm", "ray")


def command(folder: Path, options: Mapping[str, Any], retry_failed: bool = False) -> list[str]:
    """The worker of one task, in the Python of this process; one of several that train each run together if `options` have `ranks`."""
    gpus = ",".join(str(index) for index in range(int(options["gpus"])))
    words = [sys.executable, "-m", "featscale.cli.app", "worker", str(folder.absolute())]
    if options.get("ranks", 1) > 1:
        return [*words, "--ddp", *(["--retry-failed"] if retry_failed else [])]
    words += ["--processes", str(options["processes"])]
    words += ["--threads", str(max(1, int(options["cpus"]) // int(options["processes"])))]
    words += ["--gpus", gpus] if gpus else []
    return [*words, "--retry-failed"] if retry_failed else words


def start(options: Mapping[str, Any], folders: Sequence[Path], left: int, retry_failed: bool) -> int:
    """Start the workers of a sweep on the engine that `options` (the group launcher of the configuration) name.

    Arguments: folders, of the sweeps. left, how many runs are to be trained: the most tasks that make sense.
    Returns: the exit code: of the work where the engine waits for it (ray), of its start where it does not (slurm).
    Raises: BadInput for options that the engine has not, or without the engine.
    """
    options = _checked(options)
    tasks = min(int(options["tasks"]), max(left, 1))
    if options["engine"] == "slurm":
        from featscale.cli.engines import slurm

        return slurm.start(slurm.Slurm(**_rest(options)), folders, tasks, retry_failed)
    from featscale.cli.engines import ray

    return ray.start(ray.Ray(**_rest(options)), folders, tasks, retry_failed)


def _rest(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in ("engine", "tasks")}


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with the numbers that every engine has tested."""
    engine = options.get("engine")
    require(engine in ENGINES[2:], "launcher.engine", engine, f"one of {', '.join(ENGINES)}")
    for key, least in (("tasks", 1), ("processes", 1), ("cpus", 1), ("gpus", 0)):
        value = options.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadInput(f"launcher.{key}", value, f"an integer >= {least}")
    return options
