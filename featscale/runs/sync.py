"""Pushing what is mirrored offline to W&B, later and as often as one likes; a run that is there already is not sent again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from featscale.errors import BadInput
from featscale.runs.directory import CONFIG, RunDirectory
from featscale.runs.mirror import Mirror
from featscale.runs.record import Record

# Runs handed to W&B at once: few enough for a command line, many enough that its start costs little.
BATCH = 200
# Marks the folder of an offline file that was made from the record.
REBUILT = "rebuilt"
REFUSED = re.compile(r"ERROR \[[^\]]*/([^/\]]+)\]")
Push = Callable[[Sequence[Path]], str]


@dataclass
class Synced:
    """What a sync did, as paths of run directories: pushed now, there already, left out on purpose, and those that did not arrive.

    rebuilt, those of them whose offline file was missing or cut short and was made again from the local record. reason, what W&B said
    where something did not arrive.
    """

    pushed: list[Path] = field(default_factory=list)
    already: list[Path] = field(default_factory=list)
    unmirrored: list[Path] = field(default_factory=list)
    rebuilt: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    reason: str = ""


def sync(paths: Sequence[Path], everything: bool = False, push: Push | None = None) -> Synced:
    """Push the finished runs in `paths` that W&B has not got.

    The offline file of the last attempt is complete by itself, and those of earlier attempts are never sent. Where W&B failed in the middle of
    a run its file is cut short: it is made again from record and curve, which lost nothing. A file is marked (by W&B, NAME.synced beside it)
    once it has arrived, so that a sync may be cut off anywhere and asked for again.
    Arguments: paths, directories with a record. everything, also runs that were made with logger=none. push, hands .wandb files to W&B and
    returns what it said; `wandb sync` by default.
    Cost: 20 ms a rebuilt run, and the upload.
    """
    push = push or wandb_sync
    result = Synced()
    waiting: dict[Path, Path] = {}
    for path in paths:
        directory = RunDirectory(path)
        record = directory.read_record()
        config = _config(path)
        if config["logger"]["mode"] == "disabled" and not everything:
            result.unmirrored.append(path)
            continue
        file = sound_file(path, record)
        if file is None and not record.mirror_problem and any(path.glob(f"wandb/run-*-{path.name}")):
            # Mirrored online all along.
            result.already.append(path)
            continue
        if file is None:
            file = rebuild(directory, record, config)
            result.rebuilt.append(path)
        if marker(file).exists():
            result.already.append(path)
        else:
            waiting[path] = file
    for batch in _batches(list(waiting), BATCH):
        result.reason = push([waiting[path] for path in batch]) or result.reason
    for path, file in waiting.items():
        (result.pushed if marker(file).exists() else result.left).append(path)
    return result


def offline_file(path: Path) -> Path | None:
    """The .wandb file of the last offline attempt of the run in `path`; None if there is none."""
    # Folders are named offline-run-YYYYMMDD_hhmmss-ID: their order is that of time.
    files = sorted(path.glob(f"wandb/offline-run-*/run-{path.name}.wandb"))
    return files[-1] if files else None


def marker(file: Path) -> Path:
    """The file that W&B writes beside a .wandb file that has arrived."""
    return file.with_name(f"{file.name}.synced")


def sound_file(path: Path, record: Record) -> Path | None:
    """The offline file that holds the whole run: the last, unless W&B failed while it was written."""
    file = offline_file(path)
    if file is not None and record.mirror_problem and not (file.parent / REBUILT).exists():
        return None
    return file


def rebuild(directory: RunDirectory, record: Record, config: dict[str, Any]) -> Path:
    """Make the offline file of a finished run again, from its record and curve.

    Raises: BadInput with what W&B said where that does not succeed.
    """
    mirror = Mirror(
        mode="offline",
        project=config["logger"]["project"],
        group=record.name,
        job_type=config["logger"].get("job_type", "train"),
        run_id=record.hash,
        directory=directory.path,
        config=config,
        heed_environment=False,
    )
    before = set(directory.path.glob("wandb/offline-run-*"))
    with mirror:
        mirror.log(directory.read_curve())
        mirror.summary({"status": record.status, **record.metrics})
    file = offline_file(directory.path)
    if mirror.problem or file is None:
        raise BadInput("logger", directory.path, f"a run that W&B can mirror ({mirror.problem})")
    for folder in set(directory.path.glob("wandb/offline-run-*")) - before:
        (folder / REBUILT).touch()
    return file


def wandb_sync(files: Sequence[Path]) -> str:
    """Hand .wandb files to `wandb sync`; returns its first complaint, or else its last line. Whether they arrived, their markers tell.

    `wandb sync` (0.31) also marks files whose rows the server refused, and exits 0; it says so in a line ERROR [project/id], and the marker
    is taken away again.
    Raises: BadInput if W&B is not installed.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("WANDB_MODE", "WANDB_SILENT")}
    command = [sys.executable, "-m", "wandb", "sync", *(str(file) for file in files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if "No module named wandb" in done.stderr:
        raise BadInput("wandb", "not installed", "pip install wandb")
    lines = [" ".join(line.split()) for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    for run in (found[1] for line in errors if (found := REFUSED.search(line))):
        for file in files:
            if file.name == f"run-{run}.wandb":
                marker(file).unlink(missing_ok=True)
                file.with_name(f"{file.name}.syncstate").unlink(missing_ok=True)
    return [*errors, *lines[-1:], f"exit code {done.returncode}"][0]


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load((path / CONFIG).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput("config", path / CONFIG, f"a readable file ({type(error).__name__})") from None
    if not (isinstance(config, dict) and isinstance(config.get("logger"), dict) and "mode" in config["logger"]):
        raise BadInput("config", path / CONFIG, "the configuration of a run, with logger.mode")
    return config


def _batches(items: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
