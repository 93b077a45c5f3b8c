"""Steps recorded once and replayed: on a GPU a CUDA graph, one launch for K steps where each has hundreds of small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# A recording is used if its first replay moves every tensor as plain steps do, to this part of the largest movement: far above rounding, also
# that of bf16, and far below what a number frozen into the recording would do.
AGREEMENT = 1e-2

Run = Callable[[], None]
Recorder = Callable[[Run], Run]
"""Takes what is to be recorded, which it may run as often as it needs, and returns what replays the same operations on the same memory."""
Numbers = Sequence[float | Tensor]


class Steps(Protocol):
    """Steps that can be recorded: the same operations each time, on tensors that stay where they are."""

    def batches(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the steps start, …, stop − 1, with a leading axis of steps."""

    def numbers(self, step: int) -> tuple[float, ...]:
        """What the update of a step needs beside its batch."""

    def make(self, x: Tensor, y: Tensor, numbers: Numbers) -> None:
        """Make a step, whatever its number: all that differs from step to step is in the arguments."""

    def state(self) -> list[Tensor]:
        """All that steps change and that a later step reads."""


class GraphMismatch(RuntimeError):
    """A recording whose replay does not do what was recorded."""


def cuda_graph(run: Run) -> Run:
    """Record the work of `run` on the current GPU.

    It runs once beside, so that libraries make their workspaces before: while a graph is captured they cannot.
    Not yet run on a GPU: tests/training/test_graph.py holds the tests for one, marked gpu.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        run()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Recording:
    """`length` steps in one recording, with their batches and numbers in buffers of its own: what is not in a buffer is frozen."""

    def __init__(self, steps: Steps, length: int, x: Tensor, y: Tensor, numbers: Tensor, recorder: Recorder) -> None:
        self.steps, self.length = steps, length
        # Not those of the first steps: a number that is frozen into the recording is to show.
        self.x, self.y, self.numbers = torch.zeros_like(x), torch.zeros_like(y), torch.ones_like(numbers)
        self.replay = recorder(self._run)

    def __call__(self, x: Tensor, y: Tensor, numbers: Tensor) -> None:
        """Make the steps of these batches."""
        for buffer, value in ((self.x, x), (self.y, y), (self.numbers, numbers)):
            buffer.copy_(value)
        self.replay()

    def _run(self) -> None:
        for k in range(self.length):
            self.steps.make(self.x[k], self.y[k], self.numbers[k].unbind())


class Replayed:
    """Advances `steps` by recordings of K steps, and of one step for the rest of a range, made when they are first needed.

    The first replay of each is compared with plain steps. Recordings are made anew when a tensor of the state has moved in memory.
    Arguments: recorder, :func:`cuda_graph` or a stand-in. K >= 1.
    Raises: GraphMismatch from :meth:`advance` if a replay and the plain steps disagree.
    Accuracy: the operations are those of plain steps; numbers that go by a buffer are tensors in float64 there.
    Cost: 2 K plain steps a recording; memory for what K steps keep.
    """

    def __init__(self, steps: Steps, recorder: Recorder, K: int) -> None:
        self.steps, self.recorder, self.K = steps, recorder, K
        self.recordings: dict[int, Recording] = {}
        self.places: list[int] = []

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1."""
        places = [tensor.data_ptr() for tensor in self.steps.state()]
        if places != self.places:
            self.recordings, self.places = {}, places
        for begin in range(start, stop, self.K):
            end = min(begin + self.K, stop)
            length = self.K if end - begin == self.K else 1
            x, y = self.steps.batches(begin, end)
            numbers = torch.tensor([self.steps.numbers(step) for step in range(begin, end)], dtype=torch.float64)
            numbers = numbers.to(x.device)
            for k in range(0, end - begin, length):
                part = slice(k, k + length)
                self._recording(x[part], y[part], numbers[part], begin + k)(x[part], y[part], numbers[part])

    def _recording(self, x: Tensor, y: Tensor, numbers: Tensor, step: int) -> Recording:
        length = len(x)
        if length not in self.recordings:
            self.recordings[length] = self._made(x, y, numbers, step)
        return self.recordings[length]

    @torch.no_grad()
    def _made(self, x: Tensor, y: Tensor, numbers: Tensor, step: int) -> Recording:
        """A recording that agrees with plain steps from here; leaves the state as it was."""
        state = self.steps.state()
        start = [tensor.clone() for tensor in state]
        for k in range(len(x)):
            self._plain(x[k], y[k], step + k)
        expected = [tensor.clone() for tensor in state]
        recording = self._recorded(x, y, numbers)
        _restore(state, start)
        recording(x, y, numbers)
        for tensor, before, after in zip(state, start, expected, strict=True):
            moved = (after - before).abs().nan_to_num(nan=float("inf")).max()
            if not torch.allclose(tensor, after, rtol=0.0, atol=AGREEMENT * float(moved), equal_nan=True):
                raise GraphMismatch(
                    f"{len(x)} recorded steps from step {step} on are not those made one by one; trainer.cuda_graph=false makes them so"
                )
        _restore(state, start)
        return recording

    @torch.enable_grad()
    def _plain(self, x: Tensor, y: Tensor, step: int) -> None:
        self.steps.make(x, y, self.steps.numbers(step))

    @torch.enable_grad()
    def _recorded(self, x: Tensor, y: Tensor, numbers: Tensor) -> Recording:
        return Recording(self.steps, len(x), x, y, numbers, self.recorder)


def _restore(state: Sequence[Tensor], saved: Sequence[Tensor]) -> None:
    for tensor, value in zip(state, saved, strict=True):
        tensor.copy_(value)
