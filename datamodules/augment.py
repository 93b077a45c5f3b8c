"""An endless stream of images: random affine and elastic deformations, made on the device."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.keyed import generator
from featscale.errors import require

VERSION = 1
PURPOSE = "affine_elastic "


@dataclass(frozen=True)
class AffineElastic:
    r"""Each image seen through a random affine map and a smooth random displacement.

    .. math:: x'(p) = x(A p + b + \epsilon\, u(p)), \qquad
        A = R(\theta) \begin{pmatrix} 1 & h \\ 0 & 1 \end{pmatrix} \begin{pmatrix} e^{s_1} & 0 \\ 0 & e^{s_2} \end{pmatrix}

    with p in pixels from the image's centre, x bilinear between pixels and 0 outside, and u two fields of standard
    normal numbers on a `knots` × `knots` grid over the image, bicubic between. The MNIST-1M of arXiv:2409.17858 (drawn
    from a diffusion model) is not public; this generator stands in its place, and a run's record names it with these
    entries and its version.

    Source: elastic deformations as in Simard, Steinkraus & Platt 2003, with a coarse grid in place of their Gaussian
    filter; derived, tests/datamodules/test_augment.py.
    Arguments: rotation, θ uniform within so many degrees. scale, s uniform within ± scale. shear, h uniform within
    ± shear. translation, b uniform within so many pixels. elastic, ε in pixels. knots >= 2. All >= 0. version, 1: a
    record that asks for another generator is refused, not served with this one.
    Raises: BadInput that names the field.
    Accuracy: the same numbers on every device, deformed to rounding of the dtype.
    Cost: 2 knots² + 7 normal or uniform numbers an image, drawn on the CPU; a grid and a bilinear look-up on the device.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shear: float = 0.15
    translation: float = 2.0
    elastic: float = 0.9
    knots: int = 5
    version: int = VERSION

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            ok = isinstance(value, (int, float)) and 0 <= value < math.inf
            require(ok, f"data.augmentation.{entry.name}", value, "a number >= 0")
        require(
            isinstance(self.knots, int) and self.knots >= 2, "data.augmentation.knots", self.knots, "an integer >= 2"
        )
        require(self.version == VERSION, "data.augmentation.version", self.version, f"{VERSION}, the generator here")

    def __call__(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Deformed images, shape (B, channels, height, width), for the key (seed, step)."""
        height, width = images.shape[-2:]
        half = torch.tensor([width, height], device=images.device, dtype=images.dtype) / 2
        grid = self.positions(images, seed, step) / half
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def positions(self, images: Tensor, seed: int, step: int) -> Tensor:
        """Where each pixel of each image is taken from, shape (B, height, width, 2): (x, y) in pixels from the centre."""
        B, _, height, width = images.shape
        rng = generator(seed, step, purpose=PURPOSE)
        uniform = (2 * torch.rand(B, 6, generator=rng) - 1).to(images)
        noise = torch.randn(B, 2, self.knots, self.knots, generator=rng).to(images)
        rows, columns = (_bicubic(self.knots, n).to(images) for n in (height, width))
        u = (rows @ noise @ columns.T).permute(0, 2, 3, 1)
        p = self._affine(uniform[:, :4]) @ _centred_pixels(height, width).to(images).flatten(0, 1).T
        b = self.translation * uniform[:, 4:]
        return p.mT.unflatten(1, (height, width)) + b[:, None, None] + self.elastic * u

    def _affine(self, uniform: Tensor) -> Tensor:
        """A of each image, shape (B, 2, 2), from uniform numbers in (−1, 1), shape (B, 4)."""
        theta = math.radians(self.rotation) * uniform[:, 0]
        h, s = self.shear * uniform[:, 1], (self.scale * uniform[:, 2:]).exp()
        c, d = theta.cos(), theta.sin()
        rotation = torch.stack([torch.stack([c, -d], -1), torch.stack([d, c], -1)], -2)
        one, zero = torch.ones_like(h), torch.zeros_like(h)
        return rotation @ torch.stack([torch.stack([one, h], -1), torch.stack([zero, one], -1)], -2) * s[:, None]


@functools.cache
def _bicubic(knots: int, n: int) -> Tensor:
    """Bicubic interpolation from `knots` to n points that share their ends, as a matrix, shape (n, knots)."""
    unit = torch.eye(knots, dtype=torch.float64)[:, None, None]
    return F.interpolate(unit, (1, n), mode="bicubic", align_corners=True)[:, 0, 0].T.contiguous()


@functools.cache
def _centred_pixels(height: int, width: int) -> Tensor:
    """(x, y) of each pixel from the image's centre, shape (height, width, 2)."""
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
