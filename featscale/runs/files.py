"""Files that are replaced as a whole or not at all, and read with doubt."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTIAL = ".partial"


def write_atomically(path: Path, data: bytes | memoryview, durable: bool = True) -> None:
    """Replace the file `path` by `data`, as a whole or not at all, through a hidden file beside it.

    Arguments: durable, whether the data must be on the disk before this returns.
    Raises: OSError, with nothing left behind and the old file as it was.
    Cost: durable, two fsyncs.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems sync no folders; the rename itself is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


def json_object(text: bytes) -> Mapping[str, Any]:
    """The JSON object in `text`; an empty one if it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def sweep_up(folder: Path) -> None:
    """Remove what writers that were killed left half written in `folder`; call it only where no other process writes."""
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            path.unlink()
