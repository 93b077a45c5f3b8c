"""Handwritten digits, held on the device as bytes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from datamodules.download import download
from datamodules.idx import Archive, find, read
from datamodules.images import Published, require_labels
from featscale.errors import require

RAW = Path("MNIST") / "raw"
MEAN, STD = 0.13066, 0.30811
"""Mean and standard deviation of the training pixels, of values in 0..1."""


class MNIST(Published):
    """The digits of MNIST: images (1, 28, 28); ±1 target `parity`, +1 for even digits.

    Source: LeCun, Cortes & Burges; files as torchvision lays them out, unpacked or .gz, checked by md5.
    Arguments: train_size, the first so many of the 60,000 training images are the P of this run; None: all. test_size,
    the first so many of the 10,000 test images; None: all. folder holds MNIST/raw. augmentation, which makes the stream
    endless: each image of each step deformed anew; None: the images as they are. The rest as in
    :class:`datamodules.images.Published`.
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
    mean, std = (MEAN,), (STD,)
    binary = ("parity", (1, -1) * 5)
    _checked: tuple[Path, ...] = ()

    def prepare_data(self) -> None:
        """Unpack or download what is missing, once for all processes of a machine."""
        self._paths()

    def setup(self, stage: str | None = None) -> None:
        """Read the files and put the bytes on the device."""
        del stage
        sizes = (self.P, self.P, self.test_size, self.test_size)
        paths = self._paths()
        x, labels, x_test, labels_test = (read(path)[:n] for path, n in zip(paths, sizes, strict=True))
        labels, labels_test = require_labels(labels, paths[1]), require_labels(labels_test, paths[3])
        self.hold(torch.tensor(x)[:, None], labels, torch.tensor(x_test)[:, None], labels_test)

    def _paths(self) -> tuple[Path, ...]:
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
        self._checked = tuple(path for path in paths if path)
        return self._checked

    def _found(self) -> list[Path | None]:
        return [find(archive, self.folder / RAW, self.cache / RAW) for archive in self.archives]


def _download(raw: Path) -> str:
    """Have torchvision download into `raw`; returns what came of it, in a few words.

    Raises: BadInput if `raw` cannot be written.
    """
    from torchvision.datasets import MNIST as Torchvision

    def fetch(folder: Path) -> None:
        Torchvision(folder, download=True)
        for path in (folder / RAW).glob("*-ubyte"):
            os.replace(path, raw / path.name)

    return download(Torchvision.mirrors, raw, fetch)
