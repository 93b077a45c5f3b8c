"""Ray: workers as tasks of a cluster, begun again elsewhere when a node is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featscale.cli.engines import command
from featscale.errors import BadInput


@dataclass(frozen=True)
class Ray:
    """What a task asks of Ray; conf/launcher/ray.yaml says what each is."""

    address: str | None = None
    processes: int = 1
    cpus: int = 1
    gpus: int = 0


def start(engine: Ray, folders: Sequence[Path], tasks: int, retry_failed: bool) -> int:
    """Run `tasks` workers on each sweep and wait for them; returns the worst exit code.

    Raises: BadInput without Ray, or where its cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise BadInput("launcher", "ray", "an installation with Ray: pip install 'featscale[ray]'") from None
    quiet: dict[str, Any] = {"include_dashboard": False} if engine.address is None else {}
    try:
        ray.init(address=engine.address, log_to_driver=False, logging_level="ERROR", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput("launcher.address", engine.address, f"a Ray that can be reached ({error})") from None
    try:
        # A task that ended has an exit code; one whose node was lost has none, and is begun again.
        work = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=-1)(worker)
        words = [command(folder, asdict(engine), retry_failed) for folder in folders]
        sys.stderr.write(f"{tasks} workers on Ray for {', '.join(folder.name for folder in folders)}\n")
        return max(ray.get([work.remote(each) for each in words for _ in range(tasks)]), default=0)
    finally:
        ray.shutdown()


def worker(words: Sequence[str]) -> int:
    """What a task does: the worker in a process of its own, which a signal to Ray does not kill halfway."""
    return subprocess.run(words, check=False).returncode
