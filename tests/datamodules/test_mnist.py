"""MNIST: batches, targets, and every way its files can be missing; on tiny synthetic archives, and on the real ones."""

import contextlib
import functools
import gc
import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
from collections import Counter

import numpy as np
import pytest
import torch

import datamodules.download as source
from datamodules.idx import Archive
from datamodules.mnist import MEAN, MNIST, STD
from featscale.errors import BadInput

TRAIN, TEST = 23, 7
NAMES = [archive.name for archive in MNIST.archives]


def contents():
    """Four idx files of a tiny data set whose labels are the digits in turn."""
    rng = np.random.default_rng(0)
    files = []
    for n in (TRAIN, TEST):
        files.append(struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + rng.bytes(n * 784))
        files.append(struct.pack(">4BI", 0, 0, 8, 1, n) + bytes(i % 10 for i in range(n)))
    return dict(zip(NAMES, files, strict=True))


PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in contents().items()}


class Tiny(MNIST):
    """MNIST with other files."""

    sizes = (TRAIN, TEST)
    archives = tuple(
        Archive(name, hashlib.md5(PACKED[f"{name}.gz"]).hexdigest(), hashlib.md5(content).hexdigest())
        for name, content in contents().items()
    )


@pytest.fixture
def raw(tmp_path):
    """The folder MNIST/raw of a data folder that holds the tiny archives."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, packed in PACKED.items():
        (folder / name).write_bytes(packed)
    return folder


@pytest.fixture
def tiny(raw, tmp_path):
    """A function that makes the tiny data set."""

    def make(dtype=torch.float64, **kwargs):
        data = Tiny(**({"B": 5, "folder": raw.parents[1], "cache": tmp_path / "cache", "download": False} | kwargs))
        data.place("cpu", dtype)
        data.prepare_data()
        data.setup()
        return data

    return make


def keys(x):
    """A hashable name of each image."""
    return [image.numpy().tobytes() for image in x]


def test_an_epoch_shows_every_image_once(tiny):
    data = tiny(B=4)
    whole = set(keys(tiny(B=TRAIN).batch(0, 0)[0]))
    assert len(whole) == TRAIN
    for epoch in (0, 1, 5):
        steps = range(epoch * (TRAIN // 4), (epoch + 1) * (TRAIN // 4))
        seen = Counter(key for step in steps for key in keys(data.batch(0, step)[0]))
        assert len(seen) == TRAIN // 4 * 4
        assert set(seen.values()) == {1}
        assert set(seen) <= whole


def test_replacement_shows_some_image_twice(tiny):
    seen = Counter(key for step in range(TRAIN // 4) for key in keys(tiny(stream="replacement", B=4).batch(0, step)[0]))
    assert max(seen.values()) > 1


def test_a_single_pass_ends(tiny):
    once, again = tiny(stream="single_pass"), tiny()
    assert once.steps_available == TRAIN // 5
    assert torch.equal(once.batch(0, TRAIN // 5 - 1)[0], again.batch(0, TRAIN // 5 - 1)[0])
    with pytest.raises(BadInput, match=r"^steps: 5: at most 4: a single pass over the data"):
        once.batch(0, TRAIN // 5)
    assert again.steps_available == float("inf")


@pytest.mark.parametrize("stream", ["epochs", "replacement"])
def test_a_batch_is_a_function_of_seed_and_step(tiny, stream):
    data = tiny(stream=stream)
    visits = [(0, 0), (0, 9), (1, 9), (0, 1), (0, 0), (1, 0)]
    for seed, step in visits:
        x, y = data.batch(seed, step)
        x_fresh, y_fresh = tiny(stream=stream).batch(seed, step)
        assert torch.equal(x, x_fresh)
        assert torch.equal(y, y_fresh)
    batches = {key: data.batch(*key)[0] for key in visits}
    assert len({x.numpy().tobytes() for x in batches.values()}) == len(set(visits))


def test_a_permutation_is_drawn_once_an_epoch(tiny, monkeypatch):
    data = tiny(B=4)
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *args, **kwargs: drawn.append(args) or randperm(*args, **kwargs))
    for step in range(2 * (TRAIN // 4)):
        data.batch(0, step)
        data.batch(1, step)
    assert len(drawn) == 4


def test_pixels_and_labels_go_together(tiny):
    images = np.frombuffer(contents()[NAMES[0]], np.uint8, offset=16).reshape(TRAIN, 784)
    label = {image.tobytes(): i % 10 for i, image in enumerate(images)}
    x, y = tiny(normalize=False).batch(0, 2)
    bytes_of_x = (x * 255).round().to(torch.uint8).numpy()
    assert y.argmax(1).tolist() == [label[image.tobytes()] for image in bytes_of_x]
    normalized, _ = tiny().batch(0, 2)
    assert torch.allclose(normalized, (x - MEAN) / STD, rtol=0, atol=1e-12)


def test_targets(tiny):
    data = tiny(B=TRAIN)
    labels = data.batch(0, 0)[1].argmax(1)
    one_hot, plus_minus, parity = (
        tiny(B=TRAIN, targets=kind).batch(0, 0)[1] for kind in ("one_hot", "plus_minus", "parity")
    )
    assert torch.equal(one_hot, torch.eye(10, dtype=torch.float64)[labels])
    assert torch.equal(plus_minus, 2 * one_hot - 1)
    assert parity[:, 0].tolist() == [1.0 if label % 2 == 0 else -1.0 for label in labels.tolist()]
    assert [(tiny(targets=kind).outputs, tiny(targets=kind).classes) for kind in ("one_hot", "parity")] == [
        (10, True),
        (1, False),
    ]


def test_sizes_and_types(tiny):
    data = tiny(dtype=torch.float32, train_size=11, test_size=3, B=11)
    x, y, weights = data.test_set()
    assert (x.shape, y.shape, weights.tolist()) == ((3, 1, 28, 28), (3, 10), pytest.approx([1 / 3] * 3))
    assert x.dtype == y.dtype == weights.dtype == torch.float32
    assert y.argmax(1).tolist() == [0, 1, 2]
    labels = data.batch(0, 0)[1].argmax(1)
    assert sorted(labels.tolist()) == sorted(i % 10 for i in range(11))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"B": TRAIN + 1}, "data.B"),
        ({"B": float("inf")}, "data.B"),
        ({"B": 5, "train_size": 4}, "data.B"),
        ({"train_size": TRAIN + 1}, "data.train_size"),
        ({"test_size": 0}, "data.test_size"),
        ({"targets": "labels"}, "data.targets"),
        ({"stream": "once"}, "data.stream"),
        ({"stream": "single_pass", "B": TRAIN + 1}, "data.B"),
    ],
)
def test_bad_values_are_refused_before_any_file_is_read(change, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        Tiny(**({"B": 5, "folder": "nowhere"} | change))


def test_folders_default_to_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATSCALE_DATA", "/some/data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert (str(MNIST().folder), MNIST().cache) == ("/some/data", tmp_path / "featscale")
    monkeypatch.delenv("FEATSCALE_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (str(MNIST().folder), MNIST().cache) == ("data", tmp_path / ".cache" / "featscale")


def test_the_data_folder_is_only_read(tiny, raw, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    tiny()
    assert {path: path.stat().st_mtime_ns for path in raw.iterdir()} == before
    assert sorted(os.listdir(tmp_path / "cache" / "MNIST" / "raw")) == sorted(NAMES)


def test_missing_files_are_named_without_a_network(tiny, raw):
    (raw / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(BadInput) as error:
        tiny()
    assert str(error.value) == f"paths.data: {raw.parents[1]}: a folder that holds MNIST/raw/{NAMES[2]}.gz"


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_archive_is_named(tiny, raw, name):
    path = raw / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadInput, match=f"^paths.data: .*{name}.gz: the published file"):
        tiny()


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A function that makes torchvision download from a server of the files in a folder; needs no network."""
    published = pytest.importorskip("torchvision.datasets").MNIST
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(source, "PATIENCE", 0.5)
    with contextlib.ExitStack() as stack:

        def at(address):
            monkeypatch.setattr(published, "mirrors", [f"http://127.0.0.1:{address[1]}/"])
            monkeypatch.setattr(published, "resources", [(f"{a.name}.gz", a.gz_md5) for a in Tiny.archives])

        def serve(folder):
            handler = functools.partial(Quiet, directory=str(folder))
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(server.shutdown)
            at(server.server_address)

        serve.at = at
        yield serve


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *args):
        """Say nothing."""


def test_what_is_missing_is_downloaded(tiny, raw, mirror, tmp_path, capsys):
    mirror(raw)
    downloaded = tiny(folder=tmp_path / "nowhere", download=True)
    assert torch.equal(downloaded.batch(0, 0)[0], tiny().batch(0, 0)[0])
    assert sorted(os.listdir(tmp_path / "cache" / "MNIST" / "raw")) == sorted(NAMES)
    assert capsys.readouterr().out == ""


def nothing_to_be_had(tiny, tmp_path):
    """The error of a data set that is neither in its folder nor to be downloaded."""
    with pytest.raises(BadInput) as error:
        tiny(folder=tmp_path / "nowhere", download=True)
    text = str(error.value)
    assert text.startswith(f"paths.data: {tmp_path / 'nowhere'}: a folder that holds MNIST/raw/{NAMES[0]}.gz, ")
    assert "or a network to download from (" in text
    assert "\n" not in text
    assert socket.getdefaulttimeout() is None
    return text


def test_no_server_at_all(tiny, mirror, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mirror.at(listening.getsockname())
    assert "no server answered" in nothing_to_be_had(tiny, tmp_path)


def test_a_server_that_hangs(tiny, mirror, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mirror.at(listening.getsockname())
        assert "no server answered" in nothing_to_be_had(tiny, tmp_path)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_server_without_the_files(tiny, mirror, tmp_path):
    (tmp_path / "empty").mkdir()
    mirror(tmp_path / "empty")
    assert "404" in nothing_to_be_had(tiny, tmp_path)
    # torchvision leaves the refused answer open; it is collected here, where the warning is expected.
    gc.collect()


def test_a_server_of_other_files(tiny, raw, mirror, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in PACKED:
        (other / name).write_bytes(gzip.compress(b"something else"))
    mirror(other)
    nothing_to_be_had(tiny, tmp_path)
    assert os.listdir(tmp_path / "cache" / "MNIST" / "raw") == []


@pytest.mark.data
@pytest.mark.skipif("FEATSCALE_DATA" not in os.environ, reason="FEATSCALE_DATA is not set: no MNIST archives")
def test_the_real_digits(tmp_path_factory):
    # One cache for all workers of the suite would need a lock of its own; half a second each is cheaper.
    data = MNIST(B=64, cache=tmp_path_factory.mktemp("cache"), download=False)
    data.prepare_data()
    data.setup()
    assert data.x.shape == (60_000, 1, 28, 28)
    assert data.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    share = torch.bincount(data.x.flatten(), minlength=256).numpy() / data.x.numel()
    value = np.arange(256) / 255
    assert share @ value == pytest.approx(MEAN, abs=5e-6)
    assert np.sqrt(share @ (value - MEAN) ** 2) == pytest.approx(STD, abs=5e-6)
    x, y, weights = data.test_set()
    assert x.shape == (10_000, 1, 28, 28)
    assert y.sum(0).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)
    x, _ = data.batch(0, 10**6)
    assert float(x.square().mean()) == pytest.approx(data.input_power, rel=0.1)
