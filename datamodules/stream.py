"""What every source of data is: batches as a pure function of (seed, step), handed to the trainer as ranges of steps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from featscale.errors import require


class Clocked(Protocol):
    """A Lightning module with a step clock of its own."""

    step: int
    T: int
    chunk: int


class StepRanges(IterableDataset):
    """Ranges (start, stop) of at most `chunk` steps, from where the module's clock stands to its end."""

    def __init__(self, module: Clocked) -> None:
        self.module = module

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for start in range(self.module.step, self.module.T, self.module.chunk):
            yield start, min(start + self.module.chunk, self.module.T)


class Stream(LightningDataModule):
    """A source of batches.

    Attributes: B, samples a step. input_shape, shape of one input. input_power, mean square of an input entry. outputs, length of
    one target. classes, whether the largest output names a class, so that an accuracy makes sense. one_hot, whether
    targets are one-hot, as cross-entropy needs. steps_available, after which a single pass ends, known after `prepare_data`.
    population, whether `batch` serves the
    population gradient at B = inf. device and dtype of what `batch` returns, set by :meth:`place`.
    """

    input_shape: tuple[int, ...]
    outputs: int
    input_power: float = 1.0
    classes: bool = False
    one_hot: bool = False
    steps_available: float = float("inf")
    population: bool = False

    def __init__(self, B: float) -> None:
        super().__init__()
        require(float("inf") == B or (B >= 1 and int(B) == B), "data.B", B, "an integer >= 1, or inf")
        self.B = B
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def place(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Make batches on `device` with `dtype`; called before `setup`."""
        self.device, self.dtype = torch.device(device), dtype

    @abstractmethod
    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Inputs, shape (B, *input_shape), and targets, shape (B, outputs), of one step: a pure function of (seed, step)."""

    def batches(self, seeds: Sequence[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The batches of steps start, …, stop − 1 for every seed: shapes (steps, seeds, B, *input_shape) and (steps, seeds, B, outputs)."""
        pairs = [self.batch(seed, step) for step in range(start, stop) for seed in seeds]
        x, y = (torch.stack(parts).unflatten(0, (stop - start, len(seeds))) for parts in zip(*pairs, strict=True))
        return x, y

    def decompose(self, error: Tensor) -> dict[str, Tensor]:
        """Parts of the squared test error that a curve should hold beside the loss: none unless a source says otherwise.

        Arguments: error f − y on the test set, shape (…, n, outputs). Returns: columns of shape (…).
        """
        del error
        return {}

    @abstractmethod
    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets and weights that sum to 1: the test loss is the weighted sum of the loss of each."""

    def train_dataloader(self) -> Any:
        """Ranges of steps for the module in training; the batches are made by :meth:`batch`, on the device."""
        assert self.trainer is not None
        return DataLoader(StepRanges(self.trainer.lightning_module), batch_size=None)
