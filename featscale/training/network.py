"""A neural network in a γ-scaled parameterisation as a Lightning module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from featscale.errors import require
from featscale.parameterization import Centred, Layers, tensor_rates
from featscale.training.ensemble import Ensemble, ahead, fit, fuses
from featscale.training.execution import EXACT, cannot_compile
from featscale.training.graph import Numbers, Recorder, Replayed, cuda_graph
from featscale.training.loss import MSE, Loss
from featscale.training.march import Joined
from featscale.training.module import CurveModule, Row
from featscale.training.optimizer import Optimizer
from featscale.training.scaling import Scaling

TEST_CHUNK = 1000
# A network whose step takes more operations gains nothing from company and shares the cores, or fills the GPU, by itself: measured on a CPU, a
# guess on a GPU (some 50 launches of 5 microseconds at 40 TFLOP/s).
STACKED_FLOPS, GPU_STACKED_FLOPS = 1e8, 1e10
# The same for compiled steps: up to here one core with them is as fast as two by autograd.
FUSED_FLOPS = 3e8


class Source(Protocol):
    """Where batches come from: a datamodule of `datamodules/`, or anything with these."""

    B: float
    input_shape: tuple[int, ...]
    input_power: float
    outputs: int
    classes: bool
    one_hot: bool
    steps_available: float
    population: bool

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step."""

    def batches(self, seeds: Sequence[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Those of steps start, …, stop − 1 for several seeds, with leading axes (steps, seeds)."""

    def test_set(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, targets, and weights that sum to 1."""

    def decompose(self, error: Tensor) -> dict[str, Tensor]:
        """Parts of the squared test error, as columns of the curve."""


class Network(CurveModule):
    r"""One network trained online on the centred output f = [g(x; θ₀ + γϑ) − g(x; θ₀)]/γ, or on its linearisation at γ = 0.

    The gradient is that of `loss.value`; rows hold the test loss Σ_i weights_i `loss.per_sample`_i, for classes the accuracy, and the parts of
    the squared error that the source names. Flow time is t = eta0 * step (a label with Adam).
    Source: Bordelon, Atanasov & Pehlevan 2024, arXiv:2409.17858, for the mean-field parameterisation with richness.
    Arguments: N, width. architecture, a function of input_shape, outputs, N, layers and input_power. data, a :class:`Source`. The rest as in
    :class:`CurveModule`.
    Raises: BadInput that names the field, before any data are read.
    """

    stackable = ("seed", "parameterization.gamma", "optimizer.eta0", "data.q")
    executes = True

    def __init__(
        self,
        N: int,
        architecture: Callable[..., nn.Module],
        data: Source,
        parameterization: Scaling,
        optimizer: Optimizer,
        dtype: torch.dtype,
        loss: Loss | None = None,
        **clock: Any,
    ) -> None:
        super().__init__(eta=optimizer.eta0, **clock)
        require(
            len(self.seeds) == 1, "seeds", len(self.seeds), "1 for a network; sweep the seed instead: -m seed=0,1,2"
        )
        finite = float("inf") != data.B
        require(finite or data.population, "data.B", data.B, "an integer >= 1: this source has no population gradient")
        passes = self.T <= data.steps_available
        require(passes, "steps", self.T, f"at most {data.steps_available:g}: a single pass over the data")
        self.loss = loss or MSE()
        self.loss.check(data)
        self.data, self.N, self.optimizer, self.scaling = data, N, optimizer, parameterization
        layers = Layers(parameterization.row, self.seeds[0], dtype)
        g = architecture(
            input_shape=data.input_shape, outputs=data.outputs, N=N, layers=layers, input_power=data.input_power
        )
        self.execution.products.check_gamma(parameterization.gamma, parameterization.row.output_size(N))
        self.f = Centred(g, parameterization.gamma)
        self.forward_flops: float = g.flops  # type: ignore[assignment]
        pairs = tensor_rates(self.f, parameterization.row, optimizer.name, optimizer.eta0, N)
        self.tensors, self.rates = [tensor for tensor, _ in pairs], [rate for _, rate in pairs]
        # What the optimiser keeps lives in buffers, so that Lightning moves and saves it.
        self.kept = [[f"{state}_{i}" for state in optimizer.state] for i in range(len(pairs))]
        for tensor, names in zip(self.tensors, self.kept, strict=True):
            for name in names:
                self.register_buffer(name, torch.zeros_like(tensor, requires_grad=False))
        # Called between gradients and update, in the order of `tensors`: where processes average them, in place.
        self.gradients_ready: Callable[[Sequence[Tensor]], Any] | None = None
        # Takes the steps to be replayed; None: every step is made anew.
        self.recorder: Recorder | None = cuda_graph if self.execution.cuda_graph else None
        self.value: Callable[[Tensor, Tensor], Tensor] = self.batch_loss
        self.alone: Joined | None = None
        # g(x; θ₀) on the test set, part by part, from the first row on.
        self.test_start: list[Tensor | None] = []

    def on_fit_start(self) -> None:
        """Take the test set, and compile. Raises: BadInput if that fails."""
        self.test = self.data.test_set()
        self.test_start = []
        if self.execution.compile:
            self._compile()

    def _compile(self) -> None:
        """The loss of a batch and its gradients, compiled before the first step."""
        # What other modules compiled would count towards torch's limit of variants of one function.
        torch.compiler.reset()
        self.value = torch.compile(self.batch_loss, fullgraph=True, dynamic=False)
        try:
            self.gradients(*self.data.batch(self.seeds[0], 0))
        except Exception as error:
            raise cannot_compile(error) from error

    @property
    def stacks(self) -> bool:
        """Whether its steps are made by an :class:`featscale.training.ensemble.Ensemble`, alone or in company: a chain of dense layers, small
        enough to gain from it, with all digits and not compiled."""
        chain = hasattr(self.f.g, "chain") and float("inf") != self.data.B
        plain = self.execution.products == EXACT and not self.execution.compile and self.gradients_ready is None
        if not chain or not plain:
            return False
        if not (fused := fuses(self)) and self.f.gamma == 0:
            return False
        on_cpu = FUSED_FLOPS if fused else STACKED_FLOPS
        return self.flops_per_step() <= (on_cpu if self.device.type == "cpu" else GPU_STACKED_FLOPS)

    def shape(self) -> tuple[Any, ...]:
        """Beside what all modules need: the network's tensors and activation, the update rule, the loss and the batch size."""
        tensors = tuple((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in self.f.g.named_parameters())
        constants = tuple(item for item in vars(self.optimizer).items() if item[0] != "eta0")
        rule = (self.scaling.name, self.optimizer.name, constants, self.loss, self.data.B)
        return (
            *super().shape(),
            self.stacks,
            self.execution,
            type(self.f.g),
            str(getattr(self.f.g, "phi", None)),
            tensors,
            rule,
        )

    def together(self) -> int:
        """As many as fit the caches of the cores that this process may use, or a GPU."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        return fit(self) * threads if self.stacks else 1

    @classmethod
    def join(cls, members: Sequence[Any]) -> Joined:
        """Networks of one shape in stacked steps."""
        return Ensemble(members) if members[0].stacks else super().join(members)

    def advance(self, start: int, stop: int) -> None:
        """Make the updates start, …, stop − 1."""
        if self.alone is None and self.stacks:
            self.alone = Ensemble([self])
        elif self.alone is None and self.recorder is not None:
            self.alone = Replayed(self, self.recorder, ahead(self.data.batch(self.seeds[0], start)[0]))
        with self.execution.products.steps(self.device):
            if self.alone is not None:
                self.alone.advance(start, stop)
            else:
                self.advance_by_autograd(start, stop)

    def advance_by_autograd(self, start: int, stop: int) -> None:
        """The same updates as they are defined, equal to rounding."""
        for step in range(start, stop):
            self.make(*self.data.batch(self.seeds[0], step), self.numbers(step))

    def make(self, x: Tensor, y: Tensor, numbers: Numbers) -> None:
        """One update from a batch, by autograd."""
        gradients = self.gradients(x, y)
        if self.gradients_ready is not None:
            self.gradients_ready(gradients)
        self.update(gradients, numbers)

    def batch_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What is differentiated."""
        return self.loss.value(self.f(x), y)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """∂(loss of the batch)/∂ϑ, in the order of `tensors`."""
        with self.execution.products.forward(self.device):
            loss = self.value(x, y)
        return torch.autograd.grad(loss, self.tensors)

    def batches(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Its batches of the steps start, …, stop − 1."""
        x, y = self.data.batches(self.seeds, start, stop)
        return x[:, 0], y[:, 0]

    def numbers(self, step: int) -> tuple[float, ...]:
        """What the optimiser needs to know of a step."""
        return self.optimizer.numbers(step)

    def state(self) -> list[Tensor]:
        """What is trained, and what the optimiser keeps."""
        return [tensor.detach() for tensor in self.tensors] + [
            kept for i in range(len(self.kept)) for kept in self.kept_for(i)
        ]

    def kept_for(self, i: int) -> tuple[Tensor, ...]:
        """What the optimiser keeps for tensor i."""
        return tuple(self.get_buffer(name) for name in self.kept[i])

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor], numbers: Numbers) -> None:
        """Move every tensor at its own rate."""
        for i, (theta, G, rate) in enumerate(zip(self.tensors, gradients, self.rates, strict=True)):
            self.optimizer.update(theta, G, rate.eta, rate.unit, self.kept_for(i), numbers)

    @torch.no_grad()
    def observe(self) -> list[Row]:
        """Test loss and, for classes, accuracy."""
        x, y, weights = self.test
        with EXACT.steps(self.device):
            parts = x.split(TEST_CHUNK)
            self.test_start = self.test_start or [self.f.at_start(part) if self.f.gamma else None for part in parts]
            f = torch.cat([self.f(part, start) for part, start in zip(parts, self.test_start, strict=True)])
        f, y = f.double(), y.double()
        row: Row = {"seed": self.seeds[0], "loss": float(weights.double() @ self.loss.per_sample(f, y))}
        if self.data.classes:
            row["accuracy"] = float((f.argmax(1) == y.argmax(1)).double().mean())
        return [row | {name: float(part) for name, part in self.data.decompose(f - y).items()}]

    def flops_per_step(self) -> float:
        """Two forward passes (at θ and θ₀) and one backward pass at twice their cost, B inputs; activations are left out.

        At γ = 0 the second pass is a derivative, with two products where a pass has one, and the backward pass is as before.
        """
        B = self.data.B if float("inf") != self.data.B else len(self.test[0])
        return (4.0 if self.scaling.gamma > 0 else 5.0) * B * self.forward_flops
