"""CIFAR-5M: six million images, read from the files they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.images import Bytes, Images, require_labels, require_size
from datamodules.npz import Joined, Member, mapped, member, verify
from featscale.errors import require

FOLDER = "cifar5m"
NAMES = ("part{}.npz", "cifar5m_part{}.npz")
CACHE = Path("cifar5m")
IMAGE = (32, 32, 3)


class CIFAR5M(Images):
    """Images (3, 32, 32) from the npz parts of CIFAR-5M; ±1 target `animals`, +1 for animals and −1 for vehicles.

    Training images stay in their files, of which a step reads its rows only (:mod:`datamodules.npz`); labels and the
    test set are kept on the device. A stored part is mapped where it lies, a compressed one is first unpacked into the
    cache, in a stream; either way the memory in use does not grow with the size of the parts.

    Source: Nakkiran, Neyshabur & Sedghi 2021, "The Deep Bootstrap Framework", arXiv:2010.08127: images from a
    diffusion model of CIFAR-10, labelled by a classifier (so labels are noisy); keys X, uint8 (n, 32, 32, 3), and Y, n
    integers; parts 0 to 4 train, part 5 tests, its first 10,000 images as the authors do. Means and deviations of
    the pixels as a public loader of the group of arXiv:2409.17858 has them.
    Arguments: files, the names of parts with {} for the number; None: part{}.npz, else cifar5m_part{}.npz. train_parts,
    test_part, their numbers. train_size, the first so many images of the training parts are the P of this run; None:
    all. test_size, the first so many of the test part. folder, which holds cifar5m/ or the parts themselves. verify,
    whether to compare the checksums of whole parts first. The rest as in :class:`datamodules.images.Images`.
    Raises: BadInput that names the field, or the file that is missing or broken.
    Cost: memory 1 byte an image for labels, 8 more a seed for its permutation; see
    docs/findings/2026-11-25-images.md.
    """

    input_shape = (3, 32, 32)
    sizes = (5_002_240, 1_000_448)
    mean = (121.4 / 255, 119.3 / 255, 109.83 / 255)
    std = (63.1 / 255, 62.1 / 255, 66.6 / 255)
    binary = ("animals", (-1, -1, 1, 1, 1, 1, 1, 1, -1, -1))

    def __init__(
        self,
        B: int = 64,
        targets: str = "one_hot",
        stream: str = "single_pass",
        normalize: bool = True,
        train_size: int | None = None,
        test_size: int | None = 10_000,
        files: str | None = None,
        train_parts: Sequence[int] = (0, 1, 2, 3, 4),
        test_part: int = 5,
        folder: str | Path | None = None,
        cache: str | Path | None = None,
        verify: bool = False,
    ) -> None:
        super().__init__(B, targets, stream, normalize, folder, cache)
        require(files is None or "{}" in files, "data.files", files, "a file name with {} for a part's number, or null")
        parts = [*train_parts, test_part]
        numbers = len(parts) > 1 and all(isinstance(part, int) and part >= 0 for part in parts)
        require(numbers, "data.train_parts", list(train_parts), "integers >= 0, at least one")
        apart = len(set(parts)) == len(parts)
        require(apart, "data.test_part", test_part, "a part that is not trained on; and no training part twice")
        for field, size in (("data.train_size", train_size), ("data.test_size", test_size)):
            require(size is None or (isinstance(size, int) and size >= 1), field, size, "an integer >= 1")
        self.train_size, self.asked_test_size, self.verify = train_size, test_size, verify
        self.names = NAMES if files is None else (files,)
        self.train_parts, self.test_part = tuple(train_parts), test_part
        self.images: list[Member] = []

    def place(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Make batches on `device` with `dtype`; rows are found on the CPU, where the files are."""
        super().place(device, dtype)
        self.index_device = torch.device("cpu")

    def prepare_data(self) -> None:
        """Find and check every part, and unpack what is compressed; reads headers and labels."""
        if self.images:
            return
        paths = [self._path(part) for part in (*self.train_parts, self.test_part)]
        images, labels = [_images(path) for path in paths], [_labels(path) for path in paths]
        for one, path, y in zip(images, paths, labels, strict=True):
            count = f"as many labels as its {one.shape[0]} images; it has {len(y)}"
            require(len(y) == one.shape[0], "paths.data", path, count)
            if self.verify:
                verify(one)
            if one.start is None:
                mapped(one, self.cache / CACHE)
        trained, tested = sum(one.shape[0] for one in images[:-1]), images[-1].shape[0]
        P = require_size("data.train_size", self.train_size, trained)
        self.size(P, require_size("data.test_size", self.asked_test_size, tested))
        self.images, self.parts_labels = images, (np.concatenate(labels[:-1])[:P], labels[-1][: self.test_size])

    def setup(self, stage: str | None = None) -> None:
        """Map the parts; put labels and the test images on the device."""
        del stage
        self.prepare_data()
        *trained, tested = (mapped(one, self.cache / CACHE) for one in self.images)
        self.files = Joined(trained)
        x_test = torch.from_numpy(tested.take(np.arange(self.test_size))).movedim(-1, 1)
        self.hold(None, self.parts_labels[0], x_test, self.parts_labels[1])

    def rows(self, index: Tensor) -> Tensor:
        """The bytes of training images, shape (B, 3, 32, 32), on the device."""
        return torch.from_numpy(self.files.take(index.numpy())).to(self.device).movedim(-1, 1)

    def _path(self, part: int) -> Path:
        """The file of a part.

        Raises: BadInput that names the folder and the file that is not in it.
        """
        folder = self.folder / FOLDER if (self.folder / FOLDER).is_dir() else self.folder
        names = [name.replace("{}", str(part)) for name in self.names]
        found = [folder / name for name in names if (folder / name).is_file()]
        require(bool(found), "paths.data", folder, f"a folder that holds {' or '.join(names)}")
        return found[0]


def _images(path: Path) -> Member:
    """The images of a part, checked by their header."""
    one = member(path, "X")
    right = one.dtype == np.uint8 and one.shape[1:] == IMAGE and len(one.shape) == 4 and one.shape[0] >= 1
    require(right, "paths.data", path, f"images X of uint8 (n, 32, 32, 3); they are {one.dtype} {one.shape}")
    return one


def _labels(path: Path) -> Bytes:
    """The labels of a part, as bytes, checked with their checksum."""
    one = member(path, "Y")
    right = np.issubdtype(one.dtype, np.integer) and len(one.shape) == 1
    require(right, "paths.data", path, f"labels Y, n integers; they are {one.dtype} {one.shape}")
    verify(one)
    with np.load(path, allow_pickle=False) as file:
        return require_labels(file["Y"], path)
