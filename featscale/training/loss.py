"""Losses as data: what a run's `loss` group instantiates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from featscale.errors import require


class Labelled(Protocol):
    """What a loss asks of a source of data."""

    one_hot: bool


class Loss(ABC):
    """A loss of outputs f and targets y, both of shape (…, B, outputs); leading axes are networks side by side.

    Attributes: name, as in the configuration.
    """

    name: str

    @abstractmethod
    def value(self, f: Tensor, y: Tensor) -> Tensor:
        """The training loss of each network, shape (…): a mean over the batch; what is differentiated."""

    @abstractmethod
    def slope(self, f: Tensor, y: Tensor) -> Tensor:
        """d value/d f, shape (…, B, outputs), in closed form."""

    @abstractmethod
    def per_sample(self, f: Tensor, y: Tensor) -> Tensor:
        """The test loss of each sample, shape (…, B); a curve holds its weighted mean over the test set."""

    def check(self, data: Labelled) -> None:
        """Raise BadInput if this loss cannot be asked of `data`."""
        del data


@dataclass(frozen=True)
class MSE(Loss):
    r"""Squared error: trained on the sum over outputs, tested on the mean over outputs.

    .. math:: L = \frac{1}{2B} \sum_{i=1}^B \sum_c (f_{ic} - y_{ic})^2, \qquad
        \frac{\partial L}{\partial f} = \frac{f - y}{B}, \qquad L_{test} = \sum_i w_i \frac{1}{C} \sum_c (f_{ic} - y_{ic})^2

    The training loss has the ½ and the sum, so that gradient flow is df/dt = −Θ(f − y) for any number of outputs C;
    the test loss has neither, so that f = 0 starts at the power of the targets.

    Targets: one-hot classes (`data.targets=one_hot`) are what the group of Bordelon, Atanasov & Pehlevan uses on
    MNIST-1M and CIFAR-5M, in a public loader of theirs: one-hot float targets, pixels at mean 0 and variance 1, tested
    on the original test set. ±1 targets are that group's for two classes; here `plus_minus`, ten of them, and
    `parity`, one. Which of them arXiv:2409.17858 used was not read.
    """

    name: str = "mse"

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        """½ mean over the batch of the sum over outputs of (f − y)²."""
        return 0.5 * (f - y).square().sum((-2, -1)) / f.shape[-2]

    def slope(self, f: Tensor, y: Tensor) -> Tensor:
        """(f − y)/B."""
        return (f - y) / f.shape[-2]

    def per_sample(self, f: Tensor, y: Tensor) -> Tensor:
        """Mean over outputs of (f − y)²."""
        return (f - y).square().mean(-1)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""Cross-entropy of softmax(f) against one-hot targets, in nats, in training and test alike.

    .. math:: L = \frac1B \sum_i \Big[ \log \sum_c e^{f_{ic}} - \sum_c y_{ic} f_{ic} \Big], \qquad
        \frac{\partial L}{\partial f} = \frac{\mathrm{softmax}(f) - y}{B}

    Raises: BadInput from :meth:`check` for data whose targets are not one-hot classes.
    Accuracy: log-sum-exp is shifted by its largest term, so no f overflows.
    """

    name: str = "cross_entropy"

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        """Mean over the batch of −log p(label)."""
        return self.per_sample(f, y).mean(-1)

    def slope(self, f: Tensor, y: Tensor) -> Tensor:
        """(softmax(f) − y)/B."""
        return (f.softmax(-1) - y) / f.shape[-2]

    def per_sample(self, f: Tensor, y: Tensor) -> Tensor:
        """−log p(label)."""
        return torch.logsumexp(f, -1) - (f * y).sum(-1)

    def check(self, data: Labelled) -> None:
        """Raise BadInput unless the targets are one-hot classes."""
        require(data.one_hot, "loss", self.name, "mse for targets that are not one-hot classes (data.targets=one_hot)")
