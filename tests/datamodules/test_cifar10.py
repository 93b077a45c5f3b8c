"""CIFAR-10 through torchvision: small batches in its own format, made up and of real pixels; what is missing or damaged."""

import functools
import hashlib
import http.server
import pickle
import tarfile
import threading

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

import datamodules.download as downloads
from datamodules.cifar10 import CIFAR10
from featscale.errors import BadInput

BATCH = 20
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


class Small(CIFAR10):
    """CIFAR-10 with fewer images."""

    sizes = (5 * BATCH, BATCH)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """A function that writes images (120, 32, 32, 3) and labels as torchvision's files and has it expect them."""

    def write(images, labels):
        folder = tmp_path / "data" / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        digests = []
        for i, name in enumerate(NAMES):
            part = slice(i * BATCH, (i + 1) * BATCH)
            rows = images[part].transpose(0, 3, 1, 2).reshape(BATCH, -1)
            content = pickle.dumps({"data": rows, "labels": labels[part].tolist()})
            (folder / name).write_bytes(content)
            digests.append([name, hashlib.md5(content).hexdigest()])
        meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
        (folder / "batches.meta").write_bytes(meta)
        published = torchvision.datasets.CIFAR10
        monkeypatch.setattr(published, "train_list", digests[:5])
        monkeypatch.setattr(published, "test_list", digests[5:])
        monkeypatch.setattr(published, "meta", published.meta | {"md5": hashlib.md5(meta).hexdigest()})
        return folder

    return write


@pytest.fixture
def made_up():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6 * BATCH, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 6 * BATCH)


def ready(folder, cache=None, dtype=torch.float64, **kwargs):
    options = {"B": 8, "folder": folder, "cache": cache or folder.parent / "cache", "download": False}
    data = Small(**(options | kwargs))
    data.place("cpu", dtype)
    data.prepare_data()
    data.setup()
    return data


def test_images_labels_and_splits(publish, made_up):
    images, labels = made_up
    data = ready(publish(images, labels).parent, B=100, normalize=False)
    x, y = data.batch(0, 0)
    label = {image.tobytes(): int(one) for image, one in zip(images[:100], labels[:100], strict=True)}
    shown = (x * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    assert {image.tobytes() for image in shown} == set(label)
    assert y.argmax(1).tolist() == [label[image.tobytes()] for image in shown]
    x, y, _ = data.test_set()
    assert np.array_equal((x * 255).round().to(torch.uint8).movedim(1, -1).numpy(), images[100:])
    assert y.argmax(1).tolist() == labels[100:].tolist()


def test_sizes_and_streams(publish, made_up):
    folder = publish(*made_up).parent
    data = ready(folder, train_size=16, test_size=5, stream="single_pass")
    assert (data.P, len(data.test_set()[0]), data.steps_available) == (16, 5, 2)
    assert ready(folder, targets="animals").batch(0, 0)[1].shape == (8, 1)
    with pytest.raises(BadInput, match=r"^data\.train_size: 101: "):
        ready(folder, train_size=101)


def test_a_missing_and_a_damaged_file_are_named(publish, made_up):
    folder = publish(*made_up)
    (folder / "data_batch_3").rename(folder / "elsewhere")
    with pytest.raises(BadInput, match=r"^paths\.data: .*data_batch_3: a file of CIFAR-10 in "):
        ready(folder.parent)
    # A pickle that is not the published one is never read.
    (folder / "data_batch_3").write_bytes((folder / "elsewhere").read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"^paths\.data: .*data_batch_3: the published file: damaged"):
        ready(folder.parent)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not log."""

    def log_message(self, *args):
        """Say nothing."""


def test_what_is_missing_is_downloaded(publish, made_up, tmp_path, monkeypatch, capsys):
    folder = publish(*made_up)
    archive = tmp_path / "served" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    published = torchvision.datasets.CIFAR10
    monkeypatch.setattr(published, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(archive.parent)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        monkeypatch.setattr(published, "url", f"http://127.0.0.1:{server.server_address[1]}/{archive.name}")
        data = ready(tmp_path / "nowhere", cache=tmp_path / "cache", download=True)
    finally:
        server.shutdown()
        server.server_close()
    assert torch.equal(data.batch(0, 0)[0], ready(folder.parent).batch(0, 0)[0])
    assert [path.name for path in (tmp_path / "cache" / "cifar10").iterdir()] == ["cifar-10-batches-py"]
    assert capsys.readouterr().out == ""


def test_no_network_is_said_in_one_line(publish, made_up, tmp_path, monkeypatch):
    publish(*made_up)
    monkeypatch.setattr(downloads, "PATIENCE", 0.5)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(BadInput) as error:
        ready(tmp_path / "nowhere", download=True)
    assert "or a network to download from (no server answered" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.data
def test_real_pixels_have_the_published_moments(publish, data_folder):
    """The exact pixels of the data folder, in torchvision's format and back."""
    sheets = sorted((data_folder / "cifar10-exact").glob("train_0*.png"))
    images = np.concatenate([np.asarray(Image.open(sheet)).reshape(-1, 32, 32, 3) for sheet in sheets])
    with np.load(data_folder / "cifar10-exact" / "labels.npz") as file:
        labels = file["train"].astype(np.int64)[: len(images)]
    mean, std = images.mean((0, 1, 2)) / 255, images.std((0, 1, 2)) / 255
    assert mean == pytest.approx(CIFAR10.mean, abs=0.006)  # 4,000 of the 50,000 images
    assert std == pytest.approx(CIFAR10.std, abs=0.006)
    data = ready(publish(images[: 6 * BATCH], labels[: 6 * BATCH]).parent)
    assert np.array_equal(data.x.movedim(1, -1).numpy(), images[: 5 * BATCH])
    assert data.labels.tolist() == labels[: 5 * BATCH].tolist()
