"""The idx format of MNIST, and archives of it that are checked and unpacked."""

from __future__ import annotations

import gzip
import hashlib
import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featscale.errors import BadInput, require

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
UINT8 = 8


@dataclass(frozen=True)
class Archive:
    """One idx file of a published data set: its name, the md5 of its .gz, and the md5 of what that unpacks to."""

    name: str
    gz_md5: str
    md5: str


def read(path: Path) -> Bytes:
    """The array in an idx file of unsigned bytes.

    Source: the format as in http://yann.lecun.com/exdb/mnist: two zero bytes, type, number of dimensions, big-endian
    sizes, entries.
    Raises: BadInput that names the file if its header or its length is not that of such a file.
    """
    raw = path.read_bytes()
    require(raw[:3] == bytes((0, 0, UINT8)) and len(raw) >= 4, "paths.data", path, "an idx file of unsigned bytes")
    start = 4 + 4 * raw[3]
    require(raw[3] >= 1 and len(raw) >= start, "paths.data", path, "an idx file with a whole header")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", raw[3], 4))
    entries = int(np.prod(shape, dtype=np.int64))
    require(
        len(raw) == start + entries,
        "paths.data",
        path,
        f"an idx file of {start + entries} bytes, as its header says; it has {len(raw)}",
    )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def md5(path: Path) -> str:
    """md5 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def find(archive: Archive, folder: Path, cache: Path) -> Path | None:
    """The unpacked, checked idx file of `archive`: from `folder`, else from `cache`, else unpacked from `folder` into `cache`.

    Arguments: folder, is only read. cache, is made when something is unpacked.
    Returns: its path, or None if neither folder holds the file or its .gz.
    Raises: BadInput that names the file in `folder` whose md5 is wrong, or a cache that cannot be written. A wrong
    file in the cache is unpacked anew.
    """
    idx, gz, unpacked = folder / archive.name, folder / f"{archive.name}.gz", cache / archive.name
    if idx.is_file():
        _require_md5(idx, archive.md5)
        return idx
    if unpacked.is_file() and md5(unpacked) == archive.md5:
        return unpacked
    if not gz.is_file():
        return None
    _require_md5(gz, archive.gz_md5)
    _unpack(gz, unpacked)
    _require_md5(unpacked, archive.md5)
    return unpacked


def _require_md5(path: Path, expected: str) -> None:
    found = md5(path)
    require(
        found == expected,
        "paths.data",
        path,
        f"the published file, with md5 {expected}; this one has {found}: damaged, or another file",
    )


def _unpack(gz: Path, target: Path) -> None:
    """Unpack through a temporary file, so that a kill or a second process leaves a whole file or none."""
    try:
        with gzip.open(gz) as source:
            content = source.read()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput("paths.data", gz, f"a whole gzip file ({error})") from error
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, target)
    except OSError as error:
        raise BadInput("paths.cache", target.parent, f"a folder that can be written ({error.strerror})") from error
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
