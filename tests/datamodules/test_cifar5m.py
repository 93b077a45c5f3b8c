"""CIFAR-5M: rows, labels and splits on small made-up parts and on the real sample; each broken part named."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.cifar5m import CIFAR5M
from datamodules.stream import Stream
from featscale.errors import BadInput

N = 12
RNG = np.random.default_rng(0)
XS = RNG.integers(0, 256, (6, N, 32, 32, 3), dtype=np.uint8)
YS = RNG.integers(0, 10, (6, N))


@pytest.fixture
def parts(tmp_path):
    """A data folder with six small parts, the second compressed."""
    folder = tmp_path / "data" / "cifar5m"
    folder.mkdir(parents=True)
    for part in range(6):
        (np.savez_compressed if part == 1 else np.savez)(folder / f"part{part}.npz", X=XS[part], Y=YS[part])
    return folder


def ready(parts, dtype=torch.float64, **kwargs):
    options = {"B": 5, "test_size": None, "folder": parts.parent, "cache": parts.parents[1] / "cache"}
    data = CIFAR5M(**(options | kwargs))
    data.place("cpu", dtype)
    data.prepare_data()
    data.setup()
    return data


def test_parts_0_to_4_train_and_part_5_tests(parts):
    data = ready(parts, B=5 * N, normalize=False)
    x, y = data.batch(0, 0)
    shown = (x * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    label = {image.tobytes(): int(y) for image, y in zip(XS[:5].reshape(-1, 32, 32, 3), YS[:5].ravel(), strict=True)}
    assert {image.tobytes() for image in shown} == set(label)
    assert y.argmax(1).tolist() == [label[image.tobytes()] for image in shown]
    x, y, weights = data.test_set()
    assert np.array_equal((x * 255).round().to(torch.uint8).movedim(1, -1).numpy(), XS[5])
    assert y.argmax(1).tolist() == YS[5].tolist()
    assert float(weights.sum()) == pytest.approx(1)
    assert data.steps_available == 1


def test_pixels_are_normalised_by_channel(parts):
    raw, normal = (ready(parts, normalize=normalize).batch(0, 1)[0] for normalize in (False, True))
    mean = torch.tensor([121.4, 119.3, 109.83], dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor([63.1, 62.1, 66.6], dtype=torch.float64).view(3, 1, 1)
    assert torch.allclose(normal, (255 * raw - mean) / std, rtol=0, atol=1e-12)


def test_targets(parts):
    labels = ready(parts).batch(0, 0)[1].argmax(1).tolist()
    animals = ready(parts, targets="animals").batch(0, 0)[1]
    assert animals[:, 0].tolist() == [1.0 if label in (2, 3, 4, 5, 6, 7) else -1.0 for label in labels]


def test_a_batch_is_a_function_of_seed_and_step(parts):
    data = ready(parts, stream="epochs")
    for seed, step in ((0, 0), (1, 7), (0, 40), (0, 1)):
        assert torch.equal(data.batch(seed, step)[0], ready(parts, stream="epochs").batch(seed, step)[0])
    x, _ = data.batches((0, 3), 2, 4)
    assert x.shape == (2, 2, 5, 3, 32, 32)
    assert torch.equal(x[1, 1], data.batch(3, 3)[0])
    assert data.batches.__func__ is Stream.batches


def test_other_names_and_other_parts(parts):
    for part in range(6):
        (parts / f"part{part}.npz").rename(parts / f"cifar5m_part{part}.npz")
    assert ready(parts).P == 5 * N
    small = ready(parts, files="cifar5m_part{}.npz", train_parts=[4, 0], test_part=2, train_size=20, test_size=3)
    assert (small.P, small.test_size) == (20, 3)
    assert small.test_set()[1].argmax(1).tolist() == YS[2][:3].tolist()
    assert ready(parts, folder=parts).P == 5 * N


def spoil(parts, X=XS[3], Y=YS[3]):
    np.savez(parts / "part3.npz", X=X, Y=Y)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (lambda parts: (parts / "part3.npz").unlink(), "a folder that holds part3.npz or cifar5m_part3.npz"),
        (
            lambda parts: (parts / "part3.npz").write_bytes((parts / "part0.npz").read_bytes()[:9999]),
            "a whole npz file",
        ),
        (lambda parts: spoil(parts, X=XS[3].astype(object)), "numbers in array X, not Python objects"),
        (lambda parts: spoil(parts, Y=YS[3].astype(object)), "numbers in array Y, not Python objects"),
        (
            lambda parts: spoil(parts, X=XS[3].transpose(0, 3, 1, 2).copy()),
            "images X of uint8 (n, 32, 32, 3); they are uint8 (12, 3",
        ),
        (lambda parts: spoil(parts, X=XS[3] / 255), "images X of uint8 (n, 32, 32, 3); they are float64"),
        (lambda parts: spoil(parts, Y=YS[3] / 1), "labels Y, n integers; they are float64"),
        (lambda parts: spoil(parts, Y=YS[3][:-1]), "as many labels as its 12 images; it has 11"),
        (lambda parts: spoil(parts, Y=YS[3] * 0 + 10), "labels 0 to 9; label 0 is 10"),
        (lambda parts: spoil(parts, Y=YS[3] * 0 - 1), "labels 0 to 9; label 0 is -1"),
    ],
)
def test_the_broken_part_is_named(parts, change, allowed):
    change(parts)
    with pytest.raises(BadInput) as error:
        ready(parts)
    assert error.value.field == "paths.data"
    assert error.value.allowed.startswith(allowed)
    assert "part3.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_changed_pixel_is_found_when_asked(parts):
    content = bytearray((parts / "part0.npz").read_bytes())
    content[1000] ^= 1
    (parts / "part0.npz").write_bytes(content)
    ready(parts)
    with pytest.raises(BadInput, match=r"part0.npz: a whole npz file \(Bad CRC"):
        ready(parts, verify=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"B": math.inf}, "data.B"),
        ({"B": 5 * N + 1}, "data.B"),
        ({"train_size": 5 * N + 1}, "data.train_size"),
        ({"test_size": N + 1}, "data.test_size"),
        ({"test_size": 0}, "data.test_size"),
        ({"files": "part.npz"}, "data.files"),
        ({"train_parts": []}, "data.train_parts"),
        ({"train_parts": [0, 5]}, "data.test_part"),
        ({"train_parts": [0, 0]}, "data.test_part"),
        ({"train_parts": [-1]}, "data.train_parts"),
        ({"targets": "parity"}, "data.targets"),
    ],
)
def test_bad_values_name_the_field(parts, change, field):
    with pytest.raises(BadInput, match=f"^{field}: "):
        ready(parts, **change)


@pytest.mark.data
def test_the_real_sample(data_folder):
    data = CIFAR5M(files="sample_part{}.npz", train_parts=[0, 1], test_part=2, test_size=None, folder=data_folder)
    data.place("cpu", torch.float32)
    data.prepare_data()
    data.setup()
    assert (data.P, data.test_size, data.steps_available) == (2000, 1000, 31)
    with np.load(Path(data_folder) / "cifar5m" / "sample_part0.npz") as sample:
        assert np.array_equal(data.rows(torch.tensor([3, 999])).movedim(1, -1).numpy(), sample["X"][[3, 999]])
    x, y, _ = data.test_set()
    assert float(x.square().mean()) == pytest.approx(1, abs=0.05)
    assert 80 < float(y.sum(0).min())
