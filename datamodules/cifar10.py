"""CIFAR-10, held on the device as bytes; read and downloaded by torchvision."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch

from datamodules.download import download
from datamodules.idx import md5
from datamodules.images import Bytes, Published, require_labels
from featscale.errors import BadInput, require

CACHE = Path("cifar10")


class CIFAR10(Published):
    """The photographs of CIFAR-10: images (3, 32, 32); ±1 target `animals`, +1 for animals and −1 for vehicles.

    Its published files are pickles: they are read by torchvision alone, and only where each has the published md5.

    Source: Krizhevsky 2009; files as torchvision lays them out. Means and deviations of the training pixels, one a
    channel, as published for it.
    Arguments: train_size, the first so many of the 50,000 training images are the P of this run; None: all. test_size,
    the first so many of the 10,000 test images; None: all. folder, which holds cifar-10-batches-py/. augmentation, see
    :class:`datamodules.augment.AffineElastic`; None: the images as they are. The rest as in
    :class:`datamodules.images.Published`.
    Raises: BadInput that names the field, or the file that is damaged or missing.
    """

    input_shape = (3, 32, 32)
    sizes = (50_000, 10_000)
    mean = (0.49140, 0.48216, 0.44653)
    std = (0.24703, 0.24349, 0.26159)
    binary = ("animals", (-1, -1, 1, 1, 1, 1, 1, 1, -1, -1))
    _root: Path | None = None

    def prepare_data(self) -> None:
        """Find the files, or download them, once for all processes of a machine."""
        if self._root is not None:
            return
        places = (self.folder, self.cache / CACHE)
        missing = [_missing(place) for place in places]
        # A damaged file in the cache is downloaded anew; one in the user's folder is named.
        wrong = missing[0]
        require(
            wrong is None or not wrong.is_file(), "paths.data", wrong, "the published file: damaged, or another file"
        )
        why = ""
        if self.download and None not in missing:
            why = f", or a network to download from ({_download(self.cache / CACHE)})"
            missing = [_missing(place) for place in places]
        require(None in missing, "paths.data", wrong, f"a file of CIFAR-10 in {self.folder}{why}")
        self._root = places[missing.index(None)]

    def setup(self, stage: str | None = None) -> None:
        """Read the files and put the bytes on the device."""
        del stage
        self.prepare_data()
        assert self._root is not None
        (x, labels), (x_test, labels_test) = (_read(self._root, train) for train in (True, False))
        self.hold(
            torch.from_numpy(x[: self.P]).movedim(-1, 1).contiguous(),
            labels[: self.P],
            torch.from_numpy(x_test[: self.test_size]).movedim(-1, 1).contiguous(),
            labels_test[: self.test_size],
        )


def _read(root: Path, train: bool) -> tuple[Bytes, Bytes]:
    """Images, shape (n, 32, 32, 3), and labels, shape (n,)."""
    from torchvision.datasets import CIFAR10 as Torchvision

    try:
        published = Torchvision(root, train=train)
    except RuntimeError as error:
        raise BadInput("paths.data", root, f"the files of CIFAR-10 ({error})") from error
    return published.data, require_labels(np.array(published.targets), root)


def _missing(root: Path) -> Path | None:
    """The first published file that is not in `root`, or not with its md5; None if all are."""
    from torchvision.datasets import CIFAR10 as Torchvision

    meta = Torchvision.meta
    files = [*Torchvision.train_list, *Torchvision.test_list, (meta["filename"], meta["md5"])]
    paths = [(root / Torchvision.base_folder / name, digest) for name, digest in files]
    return next((path for path, digest in paths if not path.is_file() or md5(path) != digest), None)


def _download(target: Path) -> str:
    """Have torchvision download into `target`; returns what came of it, in a few words.

    Raises: BadInput if `target` cannot be written.
    """
    from torchvision.datasets import CIFAR10 as Torchvision

    def fetch(folder: Path) -> None:
        Torchvision(folder, download=True)
        shutil.rmtree(target / Torchvision.base_folder, ignore_errors=True)
        os.replace(folder / Torchvision.base_folder, target / Torchvision.base_folder)

    return download([Torchvision.url], target, fetch)
