"""idx files and archives: read when whole, refused by name when not."""

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from datamodules.idx import Archive, find, read
from featscale.errors import BadInput

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def encoded(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(tmp_path):
    """An archive of ARRAY, its .gz in tmp_path/data."""
    packed = gzip.compress(encoded(ARRAY), mtime=0)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a-idx3-ubyte.gz").write_bytes(packed)
    return Archive("a-idx3-ubyte", md5(packed), md5(encoded(ARRAY)))


@given(array=npst.arrays(np.uint8, npst.array_shapes(max_dims=4, max_side=4), elements=st.integers(0, 255)))
def test_what_was_written_is_read(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(encoded(array))
    assert np.array_equal(read(path), array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:6],
        lambda raw: raw[:2],
        lambda raw: b"",
        lambda raw: b"\0\0\x0d" + raw[3:],
        lambda raw: b"<html>" + raw,
        lambda raw: b"\0\0\x08\0",
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "digits-idx3-ubyte"
    path.write_bytes(damage(encoded(ARRAY)))
    with pytest.raises(BadInput, match=r"^paths.data: .*digits-idx3-ubyte: an idx file"):
        read(path)


def test_an_archive_is_unpacked_once(archive, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    path = find(archive, data, cache)
    assert path == cache / archive.name
    assert np.array_equal(read(path), ARRAY)
    assert os.listdir(cache) == [archive.name]
    written = path.stat().st_mtime_ns
    (data / "a-idx3-ubyte.gz").unlink()
    assert find(archive, data, cache) == path
    assert path.stat().st_mtime_ns == written
    assert find(archive, data, tmp_path / "another cache") is None


def test_an_unpacked_file_is_used_where_it_lies(archive, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    (data / archive.name).write_bytes(encoded(ARRAY))
    assert find(archive, data, cache) == data / archive.name
    assert not cache.exists()


def test_a_damaged_cache_is_made_again(archive, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    find(archive, data, cache).write_bytes(encoded(ARRAY)[:-3])
    assert np.array_equal(read(find(archive, data, cache)), ARRAY)


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_a_file_with_a_wrong_md5_is_named(archive, tmp_path, name):
    (tmp_path / "data" / name).write_bytes(encoded(ARRAY)[:-1])
    with pytest.raises(BadInput, match=f"^paths.data: .*/data/{name}: the published file, with md5"):
        find(archive, tmp_path / "data", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_broken_gzip_file_is_named_even_if_its_md5_is_right(archive, tmp_path):
    gz = tmp_path / "data" / "a-idx3-ubyte.gz"
    for content in (gz.read_bytes()[:-9], b"not gzip at all", gz.read_bytes()[:12] + b"\xff" * 20):
        gz.write_bytes(content)
        with pytest.raises(BadInput, match=r"^paths.data: .*a-idx3-ubyte.gz: a whole gzip file"):
            find(Archive(archive.name, md5(content), archive.md5), tmp_path / "data", tmp_path / "cache")


def test_an_archive_of_something_else_is_named(archive, tmp_path):
    with pytest.raises(BadInput, match=r"^paths.data: .*a-idx3-ubyte: the published file"):
        find(Archive(archive.name, archive.gz_md5, md5(b"else")), tmp_path / "data", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(archive, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    with pytest.raises(BadInput, match=r"^paths.cache: .*cache: a folder that can be written"):
        find(archive, tmp_path / "data", tmp_path / "cache")
