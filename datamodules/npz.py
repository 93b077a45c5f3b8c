"""Arrays in npz files that are larger than memory: mapped where they lie, or unpacked once in a stream."""

from __future__ import annotations

import mmap
import os
import struct
import uuid
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from featscale.errors import BadInput, require

Array = np.ndarray[Any, np.dtype[Any]]

# Of a zip file's local header: its length, and where in it the lengths of the name and of the extra field stand.
LOCAL_HEADER, LOCAL_LENGTHS = 30, struct.Struct("<26xHH")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One array of an npz file, as its headers describe it.

    Attributes: path, of the file. key, the array's name. shape, dtype. start, the offset in the file of its first
    byte where it is stored as it is; None where it is compressed. header, bytes of its npy header. crc, its checksum.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int | None
    header: int
    crc: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def member(path: Path, key: str) -> Member:
    """The array `key` of the npz file `path`; reads headers only.

    Raises: BadInput that names the file if it is no whole zip file, has no such array, or holds it as Python objects
    (pickles are never read), in Fortran order, or shorter than its header says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            require(
                f"{key}.npy" in found, "paths.data", path, f"an npz file with an array {key}; it has {sorted(found)}"
            )
            info = found[f"{key}.npy"]
            with archive.open(info) as file:
                shape, fortran, dtype = _npy_header(path, key, file)
                header = file.tell()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadInput("paths.data", path, f"a whole npz file ({error}): cut short or damaged") from error
    except (OSError, NotImplementedError) as error:
        raise BadInput("paths.data", path, f"a file that can be read ({error})") from error
    require(not dtype.hasobject, "paths.data", path, f"numbers in array {key}, not Python objects: no pickle is read")
    require(not fortran, "paths.data", path, f"array {key} in C order")
    stored = info.compress_type == zipfile.ZIP_STORED
    one = Member(path, key, shape, dtype, _start(path, info) + header if stored else None, header, info.CRC)
    require(
        info.file_size == header + one.nbytes,
        "paths.data",
        path,
        f"{header + one.nbytes} bytes of array {key}, as its header says; it has {info.file_size}",
    )
    whole = one.start is None or one.start + one.nbytes <= path.stat().st_size
    require(whole, "paths.data", path, f"a whole npz file: array {key} goes on after its end")
    return one


def mapped(one: Member, cache: Path) -> Mapped:
    """The array `one` mapped into memory: from its own file, or, compressed, from an unpacked copy in `cache`."""
    path, start = (one.path, one.start) if one.start is not None else (unpacked(one, cache), one.header)
    return Mapped(path, start, one.shape, one.dtype)


def unpacked(one: Member, cache: Path) -> Path:
    """The npy file in `cache` that a compressed array unpacks to, made in a stream of 1 MiB unless it is there.

    Its name holds the array's checksum, which the stream has verified, so that another file of the same name is not
    taken for it; a kill or a second process leaves a whole file or none.
    Raises: BadInput that names the file if it is damaged, or the cache if it cannot be written.
    """
    target = cache / f"{one.path.stem}-{one.key}-{one.crc:08x}.npy"
    if target.is_file() and target.stat().st_size == one.header + one.nbytes:
        return target
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as copy:
            for chunk in _stream(one):
                copy.write(chunk)
        os.replace(partial, target)
    except OSError as error:
        need = f"a folder that can be written, with {one.nbytes / 2**30:.1f} GiB to spare ({error.strerror})"
        raise BadInput("paths.cache", target.parent, need) from error
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
    return target


def verify(one: Member) -> None:
    """Read the whole array in a stream and compare its checksum.

    Raises: BadInput that names the file.
    Cost: some 1 GB/s where it is stored as it is.
    """
    for _ in _stream(one):
        pass


class Mapped:
    """A read-only array of rows in a file, mapped into memory, of which `take` reads some without touching the map.

    A row that is looked at through the map leaves the pages around it resident: up to 2 MiB a row where Linux keeps a
    file in large folios (measured: 0.76 MiB a row, a whole file of 1 GB after some thousand rows). So `take` reads at
    the rows' offsets instead, which leaves nothing and is three to six times as fast.

    Attributes: array, the map. Arguments: path, start, the file and the offset in it of the first byte. shape, dtype
    of the array.
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.start = path, start
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        self.map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        entries = int(np.prod(shape, dtype=np.int64))
        self.array: Array = np.frombuffer(self.map, dtype, entries, start).reshape(shape)

    def take(self, rows: Array) -> Array:
        """array[rows], copied; indices >= 0.

        Raises: BadInput that names the file if it has become shorter.
        """
        out = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
        size = self.array[:1].nbytes
        for row, target in zip(rows.tolist(), out.reshape(-1).view(np.uint8).reshape(len(rows), size), strict=True):
            if os.preadv(self.descriptor, [target.data], self.start + row * size) != size:
                raise BadInput(
                    "paths.data", self.path, f"a file that does not change while it is read: row {row} is cut"
                )
        return out


class Joined:
    """Mapped arrays one after another, as one.

    Arguments: parts, whose rows have one shape and type.
    """

    def __init__(self, parts: Sequence[Mapped]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part.array) for part in parts])

    def take(self, rows: Array) -> Array:
        """The rows at `rows`, shape (len(rows), …)."""
        first = self.parts[0].array
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        part_of = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(part_of):
            here = np.flatnonzero(part_of == number)
            start = self.ends[number] - len(self.parts[number].array)
            out[here] = self.parts[number].take(rows[here] - start)
        return out


def _npy_header(path: Path, key: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of the npy array that `file` begins with."""
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        return read(file)
    except ValueError as error:
        raise BadInput("paths.data", path, f"array {key} in npy format ({error})") from error


def _start(path: Path, info: zipfile.ZipInfo) -> int:
    """The offset in the file of a member's first byte: after a local header, whose name and extra field it says the lengths of."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER)
    require(len(header) == LOCAL_HEADER, "paths.data", path, "a whole npz file: a header goes on after its end")
    name, extra = LOCAL_LENGTHS.unpack(header)
    return int(info.header_offset + LOCAL_HEADER + name + extra)


def _stream(one: Member) -> Iterator[bytes]:
    """The npy file of an array in chunks; zipfile compares the checksum at the end."""
    try:
        with zipfile.ZipFile(one.path) as archive, archive.open(f"{one.key}.npy") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadInput("paths.data", one.path, f"a whole npz file ({error}): cut short or damaged") from error
    except OSError as error:
        raise BadInput("paths.data", one.path, f"a file that can be read ({error})") from error
