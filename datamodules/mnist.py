"""Handwritten digits, held on the device as bytes."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datamodules.idx import Archive, find, read
from datamodules.keyed import generator
from datamodules.stream import Stream
from featscale.errors import BadInput, require

RAW = Path("MNIST") / "raw"
MEAN, STD = 0.13066, 0.30811
"""Mean and standard deviation of the training pixels, of values in 0..1."""
PATIENCE = 10.0
"""Seconds that a connection, or a pause in a download, may take."""


class MNIST(Stream):
    r"""The digits of MNIST: images (1, 28, 28) and targets made from their labels.

    Pixels are (p/255 − 0.13066)/0.30811 (mean 0, mean square 1 over the training set), or p/255 without `normalize`.
    Targets: `one_hot`, y_c = 1 for the label and 0 else, 10 outputs; `plus_minus`, y_c = 2 one_hot − 1, 10 outputs;
    `parity`, y = +1 for even digits and −1 for odd, 1 output.

    Streams: `epochs`, every epoch a new permutation of the P training images in ⌊P/B⌋ batches (the last P mod B
    images of the permutation are not seen in it); `replacement`, B independent draws a step. Either is a function of
    (seed, step), the same on every device.

    Source: LeCun, Cortes & Burges; files as torchvision lays them out, unpacked or .gz, checked by md5.
    Arguments: B, 1 to P, samples a step (P: full batch). train_size, the first so many of the 60,000 training images
    are the P of this run; None: all. test_size, the first so many of the 10,000 test images; None: all. folder, which
    holds MNIST/raw and is only read; None: FEATSCALE_DATA in the environment, else ./data. cache, where .gz files are
    unpacked to and downloads go; None: featscale/ in the user's cache folder. download, whether to download what is
    in neither.
    Raises: BadInput that names the field, or the file that is damaged or missing.
    """

    input_shape = (1, 28, 28)
    archives = (
        Archive("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        Archive("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        Archive("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        Archive("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    )
    sizes = (60_000, 10_000)
    """Published numbers of training and test images."""

    def __init__(
        self,
        B: int = 64,
        targets: str = "one_hot",
        stream: str = "epochs",
        normalize: bool = True,
        train_size: int | None = None,
        test_size: int | None = None,
        folder: str | Path | None = None,
        cache: str | Path | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(B)
        self.P = _size("data.train_size", train_size, self.sizes[0])
        self.test_size = _size("data.test_size", test_size, self.sizes[1])
        require(self.P >= B, "data.B", B, f"an integer from 1 to the {self.P} training images")
        require(
            targets in ("one_hot", "plus_minus", "parity"), "data.targets", targets, "one_hot, plus_minus or parity"
        )
        require(stream in ("epochs", "replacement"), "data.stream", stream, "epochs or replacement")
        self.targets, self.stream, self.normalize = targets, stream, normalize
        self.one_hot = targets == "one_hot"
        self.classes, self.outputs = targets != "parity", 1 if targets == "parity" else 10
        self.input_power = 1.0 if normalize else MEAN**2 + STD**2
        """Mean square of an input entry."""
        self.folder = Path(folder or os.environ.get("FEATSCALE_DATA") or "data").expanduser()
        self.cache = Path(cache).expanduser() if cache else _user_cache()
        self.download = download
        self._checked: list[Path] = []
        self._permutations: dict[int, tuple[int, Tensor]] = {}

    def prepare_data(self) -> None:
        """Unpack or download what is missing, once for all processes of a machine."""
        self._paths()

    def setup(self, stage: str | None = None) -> None:
        """Read the files and put the bytes on the device."""
        del stage
        sizes = (self.P, self.P, self.test_size, self.test_size)
        files = zip(self._paths(), sizes, strict=True)
        x, labels, x_test, labels_test = (torch.tensor(read(path)[:n], device=self.device) for path, n in files)
        self.x, self.x_test = x[:, None], x_test[:, None]
        self.labels, self.labels_test = labels.long(), labels_test.long()
        self.y_of_label = _targets(self.targets).to(self.device, self.dtype)
        self._permutations.clear()

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, 1, 28, 28) and targets (B, outputs)."""
        index = self._index(seed, step)
        return self._pixels(self.x.index_select(0, index)), self.y_of_label[self.labels[index]]

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """The test images with equal weights."""
        weights = torch.full((self.test_size,), 1 / self.test_size, dtype=self.dtype, device=self.device)
        return self._pixels(self.x_test), self.y_of_label[self.labels_test], weights

    def _index(self, seed: int, step: int) -> Tensor:
        B = int(self.B)
        if self.stream == "replacement":
            return torch.randint(self.P, (B,), generator=generator(seed, step)).to(self.device)
        epoch, position = divmod(step, self.P // B)
        if self._permutations.get(seed, (-1,))[0] != epoch:
            permutation = torch.randperm(self.P, generator=generator(seed, epoch)).to(self.device)
            self._permutations[seed] = (epoch, permutation)
        return self._permutations[seed][1][position * B : (position + 1) * B]

    def _pixels(self, p: Tensor) -> Tensor:
        x = p.to(self.dtype)
        return x.mul_(1 / (255 * STD)).sub_(MEAN / STD) if self.normalize else x.mul_(1 / 255)

    def _paths(self) -> list[Path]:
        """The four checked idx files; checked once, since md5 of all takes a tenth of a second."""
        if self._checked:
            return self._checked
        paths = self._found()
        why = ""
        if self.download and None in paths:
            why = f", or a network to download from ({_download(self.cache / RAW)})"
            paths = self._found()
        missing = [f"{RAW / archive.name}.gz" for archive, path in zip(self.archives, paths, strict=True) if not path]
        require(not missing, "paths.data", self.folder, f"a folder that holds {', '.join(missing)}{why}")
        self._checked = [path for path in paths if path]
        return self._checked

    def _found(self) -> list[Path | None]:
        return [find(archive, self.folder / RAW, self.cache / RAW) for archive in self.archives]


def _size(field: str, size: int | None, published: int) -> int:
    require(
        size is None or (isinstance(size, int) and 1 <= size <= published),
        field,
        size,
        f"an integer from 1 to {published}",
    )
    return published if size is None else size


def _targets(kind: str) -> Tensor:
    """The target of each label, shape (10, outputs)."""
    if kind == "parity":
        return torch.tensor([1.0, -1.0]).repeat(5)[:, None]
    one_hot = torch.eye(10)
    return one_hot if kind == "one_hot" else 2 * one_hot - 1


def _user_cache() -> Path:
    """$XDG_CACHE_HOME/featscale, ~/.cache/featscale unless that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "featscale"


def _download(raw: Path) -> str:
    """Have torchvision download into `raw`; returns what came of it, in a few words.

    Raises: BadInput if `raw` cannot be written.
    """
    from torchvision.datasets import MNIST as Published

    if not _reachable(Published.mirrors, PATIENCE):
        return f"no server answered within {PATIENCE:g} s"
    try:
        raw.mkdir(parents=True, exist_ok=True)
        partial = tempfile.TemporaryDirectory(dir=raw, prefix="download-")
    except OSError as error:
        raise BadInput("paths.cache", raw, f"a folder that can be written ({error.strerror})") from error
    with partial as folder, _socket_timeout(PATIENCE), contextlib.redirect_stdout(sys.stderr):
        try:
            Published(folder, download=True)
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            return str(error)
        for path in (Path(folder) / RAW).glob("*-ubyte"):
            os.replace(path, raw / path.name)
    return "downloaded"


def _reachable(urls: Sequence[str], seconds: float) -> bool:
    """Whether any of `urls` answers within `seconds`; asked side by side, in threads, since a name lookup has no time limit."""
    answers: queue.Queue[bool] = queue.Queue()

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answers.put(True)
        except urllib.error.HTTPError as error:
            error.close()
            answers.put(True)
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(False)

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return any(answers.get(timeout=seconds) for _ in urls)
    return False


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
