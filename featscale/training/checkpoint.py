"""Checkpoints of a run: the whole state in plain containers, the one before kept, and each tested before it is believed."""

from __future__ import annotations

import errno
import io
import logging
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from featscale.runs.files import write_atomically
from featscale.training.module import CurveModule

log = logging.getLogger(__name__)


class CannotSave(OSError):
    """A file of the run cannot be written (a full disk, a folder that became read-only); what was there is as it was."""

    def __init__(self, error: OSError, path: Path) -> None:
        reason = error.strerror or " ".join(str(error).split()) or "unknown reason"
        super().__init__(error.errno or errno.EIO, reason, str(path))


def previous(path: Path) -> Path:
    """Where the checkpoint before the one in `path` lies."""
    return path.with_suffix(f".previous{path.suffix}")


def save(module: CurveModule, path: Path, wall_seconds: float = 0.0) -> None:
    """Write the state of `module` and its optimisers; the checkpoint that was there becomes the previous one.

    Arguments: path, of the checkpoint. wall_seconds, spent on the run so far, for its record.
    Raises: CannotSave, with the old checkpoints as they were.
    Cost: two fsyncs, and the state once more in memory.
    """
    state: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict() for optimizer in module.trainer.optimizers],
        "wall_seconds": wall_seconds,
    }
    module.on_save_checkpoint(state)
    file = io.BytesIO()
    torch.save(_compact(state), file)
    fresh = path.with_suffix(f".next{path.suffix}")
    try:
        write_atomically(fresh, file.getbuffer())
        if path.exists():
            os.replace(path, previous(path))
        os.replace(fresh, path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise CannotSave(error, path) from error


def load(path: Path) -> Mapping[str, Any] | None:
    """The checkpoint in `path`, or the one before it where that one is damaged; None where there is neither.

    Each byte is tested against the checksums that the file carries. What is damaged is warned of by name; nothing in it is executed.
    """
    for each in (path, previous(path)):
        try:
            return _load(each)
        except FileNotFoundError:
            continue
        except Exception as error:
            why = " ".join(str(error).split())[:80] or type(error).__name__
            before = each == path and previous(path).exists()
            instead = "going on from the one before" if before else "starting from step 0"
            log.warning("checkpoint %s is damaged (%s); %s", each, why, instead)
    return None


def _load(path: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    state = torch.load(path, weights_only=True, map_location="cpu")
    if not isinstance(state, dict) or "clock" not in state:
        raise ValueError("no clock in it")
    return state


def restore(module: CurveModule, state: Mapping[str, Any]) -> None:
    """Take the module's part of `state`, before `on_fit_start`; :func:`restore_optimizers` takes the rest after."""
    module.load_state_dict(state["state_dict"])
    module.on_load_checkpoint(dict(state))


def restore_optimizers(module: CurveModule, state: Mapping[str, Any]) -> None:
    """Take the optimisers' part of `state`."""
    for optimizer, saved in zip(module.trainer.optimizers, state["optimizer_states"], strict=True):
        optimizer.load_state_dict(saved)


def _compact(value: Any) -> Any:
    """`value` with tensors that are part of a larger one copied out of it, for a saved view brings all of that with it."""
    if isinstance(value, torch.Tensor):
        part = value.numel() * value.element_size() < value.untyped_storage().nbytes()
        return value.clone() if part else value
    if isinstance(value, Mapping):
        return {key: _compact(item) for key, item in value.items()}
    return [_compact(item) for item in value] if isinstance(value, list) else value
