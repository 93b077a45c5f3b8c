"""Networks of one shape trained side by side, each to the bits it would have alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from featscale.models.activations import Activation
from featscale.parameterization.layers import ScaledLinear
from featscale.training.execution import EXACT
from featscale.training.graph import Numbers, Replayed
from featscale.training.loss import MSE
from featscale.training.optimizer import SGD
from featscale.training.stack import Displaced, Layer, Operation, Stack
from featscale.training.threads import one_thread

if TYPE_CHECKING:
    from featscale.training.fused import Fused
    from featscale.training.network import Network

# Buffers of one stack, in bytes: what a core's own cache holds, more or less; on a GPU, where stacks gain by length, part of its memory.
BLOCK_BYTES, GPU_BLOCK_BYTES = 3 * 2**19, 2**31
# Networks and batches of one compiled loop, in bytes: enough that what is done once for all of them counts for little.
FUSED_BYTES = 2**24
# Batches made at once: this many steps, or fewer that fit into so many bytes.
AHEAD, AHEAD_BYTES, GPU_AHEAD_BYTES = 16, 2**20, 2**27


class Ensemble:
    """Networks of one shape side by side, in stacks that fit a core's cache, on `threads` threads (None: as many as torch has).

    After `advance` each holds the bits of its own `advance`, whatever the company, the stacks and the threads; on a GPU, whose products choose
    their algorithm by the size of a stack, the same to rounding. Where they have a `recorder` the steps are recorded and replayed.
    """

    def __init__(self, networks: Sequence[Network], threads: int | None = None) -> None:
        self.device = networks[0].device
        self.threads = 1 if self.device.type != "cpu" else min(threads or torch.get_num_threads(), len(networks))
        # Stacks of no more than fits, as many for every thread.
        count = min(len(networks), -(-len(networks) // (fit(networks[0]) * self.threads)) * self.threads)
        edges = [len(networks) * i // count for i in range(count + 1)]
        self.blocks = [Block(networks[a:b]) for a, b in pairwise(edges)]

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1 of every network."""
        with EXACT.steps(self.device), one_thread():
            if self.threads == 1:
                for block in self.blocks:
                    block.advance(start, stop)
                return
            with ThreadPoolExecutor(self.threads) as pool:
                for done in [pool.submit(block.advance, start, stop) for block in self.blocks]:
                    done.result()


def fit(network: Network) -> int:
    """How many networks like this one fit into a core's cache, or a GPU's memory, as one stack; at least 1."""
    B, tensors = int(network.data.B), network.tensors
    features, weights = sum(tensor.shape[0] for tensor in tensors), sum(tensor.numel() for tensor in tensors)
    held = B * (features + 3 * network.N) + 4 * weights
    room = BLOCK_BYTES if network.device.type == "cpu" else GPU_BLOCK_BYTES
    if fuses(network):
        # One after another, they share the cache and what is held for a step.
        held, room = AHEAD * B * (math.prod(network.data.input_shape) + network.data.outputs) + 4 * weights, FUSED_BYTES
    return max(1, room // (held * tensors[0].element_size()))


def fuses(network: Network) -> bool:
    """Whether steps are made by the compiled loop for the plainest networks: dense layers without biases, ReLU, SGD, squared error, on a CPU.

    Where the inputs are wider than the features, as images are, the first layer takes the time, and the loop gains nothing.
    """
    g = cast(Chain, network.f.g)
    dense = [cast(ScaledLinear, g.get_submodule(name)) for name, _ in g.chain()]
    plain = g.phi.in_place and not any(skip for _, skip in g.chain()) and all(layer.bias is None for layer in dense)
    rule = isinstance(network.optimizer, SGD) and isinstance(network.loss, MSE)
    here = network.device.type == "cpu" and network.recorder is None
    return plain and rule and here and math.prod(network.data.input_shape) <= network.N


def ahead(x: Tensor) -> int:
    """For how many steps batches of inputs like `x` are made at once; at least 1."""
    return max(1, min(AHEAD, (AHEAD_BYTES if x.device.type == "cpu" else GPU_AHEAD_BYTES) // x.nbytes))


class Chain(Protocol):
    """A network of dense layers one after another."""

    phi: Activation

    def chain(self) -> list[tuple[str, bool]]:
        """Name of each layer, and whether the preactivations before are added. All but the first take φ of those."""

    def get_submodule(self, name: str) -> nn.Module:
        """A layer by its name."""


class Block:
    """Networks of one shape as one :class:`featscale.training.fused.Fused` or :class:`featscale.training.stack.Stack`; what is trained is copied
    in before steps and back after."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        # Of the step that is being made.
        self.now: Numbers = ()
        self.copies: list[tuple[Tensor, list[Tensor]]] = []
        self.sources: dict[Displaced, int] = {}
        self.gamma = self._numbers([network.f.gamma for network in networks])
        g = cast(Chain, networks[0].f.g)
        layers: list[Layer] = []
        for name, skip in g.chain():
            dense = cast(ScaledLinear, g.get_submodule(name))
            weight = self._displaced(f"{name}.weight", dense.multiplier * (g.phi.gain if layers else 1.0))
            bias = None if dense.bias is None else self._displaced(f"{name}.bias", dense.bias_multiplier)
            layers.append(Layer(weight, bias, skip))
        B = int(networks[0].data.B)
        self.ahead = ahead(self.gamma.new_empty(len(networks), B, layers[0].weight.theta.shape[2]))
        self.fused: Fused | None = None
        self.replayed: Replayed | None = None
        if fuses(networks[0]):
            # As late as this: its compiler takes a second to import.
            from featscale.training.fused import Fused

            self.fused = Fused(layers, self.gamma, [self._rate(layer.weight) for layer in layers], B)
            return
        self.stack = Stack(layers, g.phi, self.gamma, B, self._slope, self._move)
        if (recorder := networks[0].recorder) is not None:
            self.replayed = Replayed(self, recorder, self.ahead)

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1."""
        for stacked, parts in self.copies:
            torch.stack(parts, out=stacked)
        if self.replayed is not None:
            self.replayed.advance(start, stop)
        else:
            self._advance(start, stop)
        for stacked, parts in self.copies:
            for part, moved in zip(parts, stacked, strict=True):
                part.copy_(moved)

    def _advance(self, start: int, stop: int) -> None:
        for begin in range(start, stop, self.ahead):
            end = min(begin + self.ahead, stop)
            x, y = self.batches(begin, end)
            if self.fused is not None:
                self.fused.steps(x, y)
                continue
            for step in range(begin, end):
                self.make(x[step - begin], y[step - begin], self.numbers(step))

    def make(self, x: Tensor, y: Tensor, numbers: Numbers) -> None:
        """One update of every member."""
        self.now = numbers
        self.stack.step(x, y)

    def numbers(self, step: int) -> tuple[float, ...]:
        """What the optimiser needs to know of a step."""
        return self.networks[0].optimizer.numbers(step)

    def state(self) -> list[Tensor]:
        """What is trained and what the optimiser keeps, stacked."""
        return [stacked for stacked, _ in self.copies]

    def batches(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Inputs (steps, E, B, D) and targets (steps, E, B, outputs); networks that share their data are asked for together."""
        x, y = [], []
        for _, group in groupby(self.networks, key=lambda network: id(network.data)):
            members = list(group)
            inputs, targets = members[0].data.batches([network.seeds[0] for network in members], start, stop)
            x.append(inputs.flatten(3))
            y.append(targets)
        return (x[0], y[0]) if len(x) == 1 else (torch.cat(x, 1), torch.cat(y, 1))

    def _displaced(self, name: str, scale: float) -> Displaced:
        """A tensor of all members, by its name in g."""
        i = list(self.networks[0].f.displacement).index(name.replace(".", "/"))
        theta = self._stacked([network.tensors[i] for network in self.networks])
        theta0 = torch.stack([network.f.g.get_parameter(name).detach() for network in self.networks])
        tensor = Displaced(theta0.view_as(theta), theta, scale, self.gamma)
        self.sources[tensor] = i
        return tensor

    def _move(self, tensor: Displaced, gradient: Tensor) -> Operation:
        i, optimizer = self.sources[tensor], self.networks[0].optimizer
        eta = self._rate(tensor)
        if isinstance(optimizer, SGD):
            # Linear in the gradient: the rate takes the scale, and all is one pass.
            return partial(tensor.theta.addcmul_, gradient, -tensor.scale * eta)
        unit = self.networks[0].rates[i].unit
        states = zip(*(network.kept_for(i) for network in self.networks), strict=True)
        kept = tuple(self._stacked(list(parts)) for parts in states)

        def move() -> None:
            optimizer.update(tensor.theta, gradient.mul_(tensor.scale), eta, unit, kept, self.now)

        return move

    def _rate(self, tensor: Displaced) -> Tensor:
        """What the table and η₀ make of the rate of a tensor, for each member."""
        return self._numbers([network.rates[self.sources[tensor]].eta for network in self.networks])

    def _slope(self, f: Tensor, y: Tensor, out: Tensor) -> None:
        out.copy_(self.networks[0].loss.slope(f, y))

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        """The members' tensors as one of shape (E, rows, columns), remembered to be copied in and back."""
        parts = [part.detach() for part in parts]
        stacked = torch.stack(parts)
        self.copies.append((stacked, parts))
        return stacked.unsqueeze(1) if stacked.dim() == 2 else stacked

    def _numbers(self, values: list[float]) -> Tensor:
        """One number a member, to be broadcast."""
        return self.networks[0].tensors[0].detach().new_tensor(values).view(-1, 1, 1)
