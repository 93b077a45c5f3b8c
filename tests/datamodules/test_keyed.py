"""Keyed randomness: the same for the same key, different for any other."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import SIGMAS

from datamodules.keyed import generator, integers


def draw(seed, step):
    return tuple(torch.rand(4, generator=generator(seed, step)).tolist())


def test_a_key_names_its_numbers():
    keys = [(seed, step) for seed in range(12) for step in range(-1, 12)]
    first, again = ({key: draw(*key) for key in keys} for _ in range(2))
    assert first == again
    assert len(set(first.values())) == len(keys)


MASK = 2**64 - 1


def mix(z):
    """SplitMix64's mixer on Python's integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def slow_integers(seed, step, n, size):
    """The definition, one number at a time."""
    golden = 0x9E3779B97F4A7C15
    c = mix(mix(seed * golden & MASK) + step * golden & MASK)
    words = [mix(c + (i + 1) * golden & MASK) for i in range(-(-n // 2))]
    halves = [half for word in words for half in (word & 2**32 - 1, word >> 32)]
    return [half * size >> 32 for half in halves[:n]]


def test_the_mixer_is_splitmix64():
    # The first three numbers of the public-domain splitmix64.c from state 1234567.
    golden = 0x9E3779B97F4A7C15
    words = [mix(1234567 + (i + 1) * golden & MASK) for i in range(3)]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(-1, 10**9),
    n=st.integers(0, 9),
    size=st.sampled_from([1, 2, 3, 1000, 2**18, 60_000, 2**32 - 1, 2**32]),
)
def test_integers_are_their_definition(seed, step, n, size):
    assert integers(seed, step, n, size).tolist() == slow_integers(seed, step, n, size)


def test_indices_do_not_depend_on_the_call():
    seeds, steps = np.array([5, 0, 17]), np.arange(3, 500)[:, None]
    together = integers(seeds, steps, 65, 1000)
    assert together.shape == (497, 3, 65)
    for i, j in ((0, 0), (496, 2), (250, 1)):
        assert (together[i, j] == integers(int(seeds[j]), int(steps[i, 0]), 65, 1000)).all()


def test_indices_are_uniform_and_keys_are_independent():
    size = 64
    drawn = integers(np.arange(200), np.arange(100)[:, None], 64, size)
    counts = np.bincount(drawn.ravel(), minlength=size)
    expected = drawn.size / size
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - (size - 1)) < SIGMAS * (2 * (size - 1)) ** 0.5
    centred = drawn - (size - 1) / 2
    for shifted in (np.roll(centred, 1, 0), np.roll(centred, 1, 1), np.roll(centred, 1, 2)):
        products = (centred * shifted).ravel()
        assert abs(products.mean()) < SIGMAS * products.std() / len(products) ** 0.5
