"""Keyed randomness: the same for the same key, different for any other."""

import torch

from datamodules.keyed import generator


def draw(seed, step):
    return tuple(torch.rand(4, generator=generator(seed, step)).tolist())


def test_a_key_names_its_numbers():
    keys = [(seed, step) for seed in range(12) for step in range(-1, 12)]
    first, again = ({key: draw(*key) for key in keys} for _ in range(2))
    assert first == again
    assert len(set(first.values())) == len(keys)
