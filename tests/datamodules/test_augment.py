"""The augmented stream: against scipy's interpolation, as a function of its key, and what each entry does."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from tolerances import IDENTITY, SIGMAS

from datamodules.augment import AffineElastic
from datamodules.mnist import MNIST
from featscale.errors import BadInput

STILL = AffineElastic(rotation=0, scale=0, shear=0, translation=0, elastic=0)


def images(B=3, channels=2, height=12, width=9, dtype=torch.float64):
    return torch.rand(B, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def slow(image, position):
    """One channel of one image by scipy's bilinear interpolation, 0 outside."""
    height, width = image.shape
    x, y = position[..., 0] + (width - 1) / 2, position[..., 1] + (height - 1) / 2
    padded = np.pad(image, 1)  # grid_sample fades to 0 over the pixel outside, scipy's "constant" cuts at the edge
    return map_coordinates(padded, [y + 1, x + 1], order=1, mode="constant")


def test_deformed_images_are_bilinear_look_ups():
    x, deform = images(), AffineElastic()
    made, positions = deform(x, 3, 7), deform.positions(x, 3, 7)
    for i in range(len(x)):
        for channel in range(x.shape[1]):
            expected = slow(x[i, channel].numpy(), positions[i].numpy())
            assert made[i, channel].numpy() == pytest.approx(expected, abs=100 * IDENTITY)


def test_no_deformation_is_the_image_itself():
    x = images()
    assert torch.allclose(STILL(x, 0, 0), x, rtol=0, atol=100 * IDENTITY)
    assert not torch.allclose(replace(STILL, translation=1.0)(x, 0, 0), x, rtol=0, atol=1e-2)


def test_a_deformation_is_a_function_of_seed_and_step():
    x, deform = images(), AffineElastic()
    assert torch.equal(deform(x, 1, 5), deform(x, 1, 5))
    for seed, step in ((1, 6), (2, 5)):
        assert not torch.equal(deform(x, 1, 5), deform(x, seed, step))
    assert torch.allclose(deform(x.float(), 1, 5), deform(x, 1, 5).float(), rtol=0, atol=1e-5)


def test_the_affine_part():
    x = images(B=400)
    centre = STILL.positions(x, 0, 0)
    turned = replace(STILL, rotation=90.0).positions(x, 0, 0)
    assert torch.allclose(turned.norm(dim=-1), centre.norm(dim=-1), rtol=1e-10)
    angle = torch.atan2(turned[:, 0, 0, 1], turned[:, 0, 0, 0]) - math.atan2(
        float(centre[0, 0, 0, 1]), float(centre[0, 0, 0, 0])
    )
    angle = torch.atan2(angle.sin(), angle.cos())
    assert float(angle.abs().max()) <= math.pi / 2 + 1e-9
    assert abs(float(angle.std()) - math.pi / math.sqrt(12)) < SIGMAS * 0.05
    moved = replace(STILL, translation=3.0).positions(x, 0, 0) - centre
    assert float(moved.abs().max()) <= 3.0
    assert torch.allclose(moved, moved[:, :1, :1].expand_as(moved), atol=1e-10)
    scaled = replace(STILL, scale=0.3).positions(x, 0, 0) / centre
    assert math.exp(-0.3) - 1e-9 <= float(scaled[:, 0, 0].min())
    assert float(scaled[:, 0, 0].max()) <= math.exp(0.3) + 1e-9


def test_the_elastic_part_has_its_size_at_the_knots_and_is_smooth():
    x = images(B=600, height=21, width=21)
    u = replace(STILL, elastic=2.0).positions(x, 0, 0) - STILL.positions(x, 0, 0)
    knots = u[:, ::5, ::5]
    assert float(knots.std()) == pytest.approx(2.0, rel=SIGMAS / math.sqrt(2 * knots.numel()))
    assert float((u[:, :, 1:] - u[:, :, :-1]).std()) < 0.5 * float(u.std())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rotation": -1}, "rotation"),
        ({"elastic": math.nan}, "elastic"),
        ({"knots": 1}, "knots"),
        ({"knots": 2.5}, "knots"),
        ({"version": 2}, "version"),
    ],
)
def test_bad_entries_are_named(change, field):
    with pytest.raises(BadInput, match=rf"^data\.augmentation\.{field}: "):
        AffineElastic(**change)


@pytest.mark.data
@pytest.mark.skipif("FEATSCALE_DATA" not in os.environ, reason="FEATSCALE_DATA is not set: no MNIST archives")
def test_the_stream_of_digits_is_endless_and_labels_stay(tmp_path_factory):
    kwargs = {"B": 64, "stream": "replacement", "cache": tmp_path_factory.mktemp("cache"), "download": False}
    plain, augmented = MNIST(**kwargs), MNIST(augmentation=AffineElastic(), **kwargs)
    for data in (plain, augmented):
        data.place("cpu", torch.float32)
        data.setup()
    (x, y), (x_plain, y_plain) = augmented.batch(0, 10**9), plain.batch(0, 10**9)
    assert torch.equal(y, y_plain)
    assert x.shape == x_plain.shape
    assert not torch.equal(x, x_plain)
    # Still digits of much the same ink: the deformations keep the mean pixel.
    assert float(x.mean()) == pytest.approx(float(x_plain.mean()), abs=0.1)
    assert torch.equal(augmented.test_set()[0], plain.test_set()[0])
