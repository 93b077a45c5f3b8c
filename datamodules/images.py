"""What all sources of labelled images share: which images a step sees, their pixels, their targets."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.augment import AffineElastic
from datamodules.keyed import generator, integers
from datamodules.stream import Stream
from featscale.errors import BadInput, require

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
STREAMS = ("epochs", "replacement", "single_pass")
CLASSES = 10


class Images(Stream):
    r"""Labelled images of ten classes, kept as bytes, and targets made from their labels.

    .. math:: x = \frac{p/255 - \mu_c}{\sigma_c}

    for a byte p of channel c, mean 0 and mean square 1 over the training set; without `normalize`, x = p/255.

    Targets: `one_hot`, y_c = 1 for the label and 0 else, 10 outputs; `plus_minus`, y_c = 2 one_hot − 1, 10 outputs; and
    one of ±1, 1 output, that each source names in `binary`.

    Streams: `epochs`, every epoch a new permutation of the P training images in ⌊P/B⌋ batches (the last P mod B images
    of the permutation are not seen in it); `single_pass`, its first epoch and no step more; `replacement`, B
    independent draws a step. Each is a function of (seed, step), the same on every device.

    Attributes: sizes, published numbers of training and test images. mean, std, of the training pixels in 0..1, one a
    channel. binary, the name of the ±1 target and its value for each label. P, training images of this run.
    augmentation, what deforms each batch; None: nothing.
    Arguments: B, 1 to P, samples a step (P: full batch). targets, stream, normalize, as above. folder, which holds the
    data and is only read; None: FEATSCALE_DATA in the environment, else ./data. cache, where archives are unpacked to
    and downloads go; None: featscale/ in the user's cache folder. download, whether to download what is in neither.
    Raises: BadInput that names the field.
    """

    sizes: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    binary: tuple[str, tuple[int, ...]]

    def __init__(
        self,
        B: int,
        targets: str,
        stream: str,
        normalize: bool,
        folder: str | Path | None,
        cache: str | Path | None,
        download: bool = False,
        augmentation: AffineElastic | None = None,
    ) -> None:
        super().__init__(B)
        self.index_device = self.device
        require(math.isfinite(B), "data.B", B, "an integer >= 1: images have no population gradient")
        kinds = ("one_hot", "plus_minus", self.binary[0])
        require(targets in kinds, "data.targets", targets, ", ".join(kinds[:-1]) + f" or {kinds[-1]}")
        require(stream in STREAMS, "data.stream", stream, ", ".join(STREAMS[:-1]) + f" or {STREAMS[-1]}")
        self.targets, self.stream, self.normalize, self.augmentation = targets, stream, normalize, augmentation
        self.one_hot, self.classes = targets == "one_hot", targets != self.binary[0]
        self.outputs = CLASSES if self.classes else 1
        moments = [mean**2 + std**2 for mean, std in zip(self.mean, self.std, strict=True)]
        self.input_power = 1.0 if normalize else sum(moments) / len(moments)
        self.folder = Path(folder or os.environ.get("FEATSCALE_DATA") or "data").expanduser()
        self.cache = Path(cache).expanduser() if cache else user_cache()
        self.download = download
        self._permutations: dict[int, tuple[int, Tensor]] = {}

    def place(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Make batches on `device` with `dtype`; called before `setup`."""
        super().place(device, dtype)
        self.index_device = self.device

    def size(self, train: int, test: int) -> None:
        """Set P and the size of the test set, and what follows from them.

        Raises: BadInput if a batch is larger than P.
        """
        self.P, self.test_size = train, test
        require(train >= self.B, "data.B", self.B, f"an integer from 1 to the {train} training images")
        self.steps_available = train // int(self.B) if self.stream == "single_pass" else math.inf

    def hold(self, x: Tensor | None, labels: Bytes, x_test: Tensor, labels_test: Bytes) -> None:
        """Put the bytes on the device: images (n, channels, height, width), or None where `rows` reads them, and labels (n,)."""
        self.x, self.x_test = None if x is None else x.to(self.device), x_test.to(self.device)
        self.labels, self.labels_test = (torch.tensor(one, device=self.device) for one in (labels, labels_test))
        self.y_of_label = self._targets().to(self.device, self.dtype)
        shape = (-1, *[1] * (len(self.input_shape) - 1))
        mean, std = (torch.tensor(one, dtype=torch.float64).view(shape) for one in (self.mean, self.std))
        self.scale, self.shift = ((1 / (255 * std)).to(self.y_of_label), (mean / std).to(self.y_of_label))
        self._permutations.clear()

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, channels, height, width) and targets (B, outputs).

        Raises: BadInput for a step after the end of a single pass.
        """
        index = self.index(seed, step)
        p = self.rows(index).to(self.dtype)
        if self.augmentation is not None:
            p = self.augmentation(p, seed, step)
        return self.pixels(p), self._y(self.labels[index.to(self.device)])

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """The test images with equal weights, undeformed."""
        weights = torch.full((self.test_size,), 1 / self.test_size, dtype=self.dtype, device=self.device)
        return self.pixels(self.x_test.to(self.dtype)), self._y(self.labels_test), weights

    def index(self, seed: int, step: int) -> Tensor:
        """Which of the P training images a step sees, shape (B,), on `index_device`."""
        B = int(self.B)
        if self.stream == "replacement":
            return torch.from_numpy(integers(seed, step, B, self.P)).to(self.index_device)
        require(
            step < self.steps_available,
            "steps",
            step + 1,
            f"at most {self.steps_available:g}: a single pass over the data",
        )
        epoch, position = divmod(step, self.P // B)
        if self._permutations.get(seed, (-1,))[0] != epoch:
            permutation = torch.randperm(self.P, generator=generator(seed, epoch)).to(self.index_device)
            self._permutations[seed] = (epoch, permutation)
        return self._permutations[seed][1][position * B : (position + 1) * B]

    def rows(self, index: Tensor) -> Tensor:
        """The bytes of training images, shape (B, channels, height, width), on the device."""
        assert self.x is not None
        return self.x.index_select(0, index)

    def pixels(self, p: Tensor) -> Tensor:
        """Network inputs from bytes p, given as numbers 0 to 255; overwrites them."""
        return p.mul_(self.scale).sub_(self.shift) if self.normalize else p.mul_(1 / 255)

    def _y(self, labels: Tensor) -> Tensor:
        return self.y_of_label[labels.long()]

    def _targets(self) -> Tensor:
        """The target of each label, shape (10, outputs)."""
        if not self.classes:
            return torch.tensor(self.binary[1], dtype=torch.float32)[:, None]
        one_hot = torch.eye(CLASSES)
        return one_hot if self.one_hot else 2 * one_hot - 1


class Published(Images):
    """A published set of images, held whole.

    Arguments: train_size, the first so many of the published training images are the P of this run; None: all. test_size, likewise for the
    test images. The rest as in :class:`Images`.
    """

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
        augmentation: AffineElastic | None = None,
    ) -> None:
        super().__init__(B, targets, stream, normalize, folder, cache, download, augmentation)
        train, test = self.sizes
        self.size(require_size("data.train_size", train_size, train), require_size("data.test_size", test_size, test))


def require_labels(labels: np.ndarray[Any, Any], path: Path) -> Bytes:
    """Labels as bytes.

    Raises: BadInput that names the file unless all are integers from 0 to 9.
    """
    integer = np.issubdtype(labels.dtype, np.integer)
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES)) if integer else np.arange(len(labels))
    if len(wrong):
        raise BadInput("paths.data", path, f"labels 0 to {CLASSES - 1}; label {wrong[0]} is {labels[wrong[0]]}")
    return labels.astype(np.uint8)


def require_size(field: str, size: int | None, available: int) -> int:
    """`size`, or all that is available if it is None; BadInput unless it is 1 to `available`."""
    whole = size is None or (isinstance(size, int) and 1 <= size <= available)
    require(whole, field, size, f"an integer from 1 to {available}")
    return available if size is None else size


def user_cache() -> Path:
    """$XDG_CACHE_HOME/featscale, ~/.cache/featscale unless that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "featscale"
