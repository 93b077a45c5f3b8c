"""Arrays in npz files: mapped and unpacked equal to what numpy loads, and every way a file can be broken."""

import io
import os
import zipfile

import numpy as np
import pytest

from datamodules.npz import Joined, mapped, member, unpacked, verify
from featscale.errors import BadInput

X = np.random.default_rng(0).integers(0, 256, (50, 4, 3), dtype=np.uint8)
Y = np.arange(50)
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def saved(tmp_path, kind="stored", name="part0.npz", **arrays):
    path = tmp_path / name
    SAVE[kind](path, **(arrays or {"X": X, "Y": Y}))
    return path


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("key", ["X", "Y"])
def test_an_array_is_what_numpy_loads(tmp_path, cache, kind, key):
    one = member(saved(tmp_path, kind), key)
    expected = {"X": X, "Y": Y}[key]
    assert (one.shape, one.dtype, one.start is None) == (expected.shape, expected.dtype, kind == "compressed")
    array = mapped(one, cache)
    assert np.array_equal(array.array, expected)
    assert not array.array.flags.writeable
    rows = np.random.default_rng(1).integers(0, 50, 3000)
    assert np.array_equal(array.take(rows), expected[rows])
    verify(one)


def test_a_stored_array_is_mapped_where_it_lies(tmp_path, cache):
    array = mapped(member(saved(tmp_path), "X"), cache)
    assert not cache.exists()
    assert np.shares_memory(array.array, np.frombuffer(array.map, np.uint8))


def test_a_file_that_shrinks_is_named(tmp_path, cache):
    path = saved(tmp_path)
    array = mapped(member(path, "X"), cache)
    os.truncate(path, 400)
    with pytest.raises(BadInput, match=r"^paths\.data: .*part0.npz: a file that does not change while it is read"):
        array.take(np.array([0, 49]))


def test_zip64_and_alignment_do_not_move_the_offset(tmp_path, cache):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, X)
    path = tmp_path / "part0.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.npy", b"x" * 77)
        with archive.open(zipfile.ZipInfo("X.npy"), "w", force_zip64=True) as file:
            file.write(buffer.getvalue())
    assert np.array_equal(mapped(member(path, "X"), cache).array, X)


def test_parts_are_joined(tmp_path, cache):
    parts = [
        mapped(member(saved(tmp_path, name=f"{i}.npz", X=X[a:b]), "X"), cache)
        for i, (a, b) in enumerate([(0, 7), (7, 8), (8, 50)])
    ]
    rows = np.array([49, 0, 7, 6, 8, 7, 20])
    assert np.array_equal(Joined(parts).take(rows), X[rows])


def test_unpacking_is_done_once_and_leaves_no_partial_file(tmp_path, cache):
    one = member(saved(tmp_path, "compressed"), "X")
    path = unpacked(one, cache)
    before = path.stat().st_mtime_ns
    assert unpacked(one, cache).stat().st_mtime_ns == before
    assert [file.name for file in cache.iterdir()] == [path.name]
    path.write_bytes(b"cut short")
    assert np.array_equal(np.load(unpacked(one, cache)), X)
    other = member(saved(tmp_path, "compressed", X=255 - X), "X")
    assert np.array_equal(mapped(other, cache).array, 255 - X)


class Trap:
    """An object that, unpickled, leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def broken(tmp_path, kind):
    """A file that is broken in one way."""
    if kind == "objects":
        return saved(tmp_path, X=np.array([Trap(tmp_path / "mark"), None], dtype=object))
    if kind == "fortran":
        return saved(tmp_path, X=np.asfortranarray(X))
    if kind == "no X":
        return saved(tmp_path, Z=X)
    path = saved(tmp_path)
    if kind == "no npz":
        path.write_bytes(b"not a zip file at all")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no npy":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", b"something else" * 9)
    elif kind == "short":
        with zipfile.ZipFile(path, "w") as archive:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, X)
            archive.writestr("X.npy", buffer.getvalue()[:-5])
    else:
        path.write_bytes(path.read_bytes()[: int(kind)])
    return path


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("objects", "numbers in array X, not Python objects: no pickle is read"),
        ("fortran", "array X in C order"),
        ("no X", "an npz file with an array X; it has"),
        ("no npz", "a whole npz file"),
        ("empty", "a whole npz file"),
        ("-1", "a whole npz file"),
        ("300", "a whole npz file"),
        ("no npy", "array X in npy format"),
        ("short", "728 bytes of array X, as its header says"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, kind, allowed):
    path = broken(tmp_path, kind)
    with pytest.raises(BadInput) as error:
        member(path, "X")
    assert str(error.value).startswith(f"paths.data: {path}: {allowed}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mark").exists()


def test_the_trap_would_have_sprung(tmp_path):
    with np.load(broken(tmp_path, "objects"), allow_pickle=True) as file:
        file["X"][0].close()
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", SAVE)
def test_a_changed_byte_is_found(tmp_path, cache, kind):
    path = saved(tmp_path, kind)
    one = member(path, "X")
    content = bytearray(path.read_bytes())
    content[300] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"^paths\.data: .*part0.npz: a whole npz file"):
        verify(one) if kind == "stored" else unpacked(one, cache)
    assert list(cache.iterdir() if cache.exists() else []) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, cache):
    cache.write_text("a file")
    with pytest.raises(BadInput, match=r"^paths\.cache: .*cache: a folder that can be written"):
        unpacked(member(saved(tmp_path, "compressed"), "X"), cache)
