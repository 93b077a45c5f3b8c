"""How the steps of a run are made: with which digits, compiled or not, recorded or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from featscale.errors import BadInput, require

# Of the error of f: the part of it that cancellation multiplies, and the most that is served.
CANCELLED, WORST = 3.0, 0.1


@dataclass(frozen=True)
class Products:
    r"""The digits that products of N features with N features take of their operands; sums, and all else, keep the dtype of the parameters.

    Those with the inputs and the readout, where nearly no operations are, keep all digits: an input rounded is another input, and an output g
    rounded is an error ε|g|/γ of f = (g − g₀)/γ. The test loss of a curve is measured with all digits.

    γ = 0, a derivative, loses nothing to cancellation. With tf32, a switch of the GPU's, products with inputs and readout are rounded too.

    Arguments: name. roundoff ε, the relative error of an operand, 0 for those of the dtype.
    """

    name: str
    roundoff: float = 0.0

    def check(self, device: str) -> None:
        """Raise BadInput unless products like these can be had on a device of that type."""
        if self != TF32:
            return
        here = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
        require(
            here,
            "precision",
            self.name,
            "float32 here: tf32 is an option of GPUs since Ampere (compute capability 8.0)",
        )

    def check_gamma(self, gamma: float, size: float) -> None:
        """Raise BadInput for a richness at which f is mostly rounding; the arguments are those of :meth:`error`."""
        if self.roundoff == 0 or gamma == 0:
            return
        least = math.ceil(1000 * CANCELLED * self.roundoff * size / (WORST - self.roundoff)) / 1000
        require(
            gamma >= least,
            "parameterization.gamma",
            gamma,
            f"0, or a number >= {least:g} at this width with precision={self.name}, where (g - g0)/gamma cancels; or precision=float32",
        )

    def error(self, gamma: float, size: float) -> float:
        r"""A bound on the relative error of an f that has come to size 1, for γ > 0.

        .. math:: \frac{|\delta f|}{|f|} \le \varepsilon \left(1 + \frac{3 |g_0|}{\gamma}\right)

        Derived: both passes round a g of the size of g₀, independently once θ has moved; the 3 is measured
        (tests/training/test_execution.py).
        Arguments: gamma > 0. size |g₀| of an output at the start, 1/√N in mean field.
        Accuracy: for modes as slow as are learned early; tf32, which rounds inputs too, is off by kε at mode k.
        """
        return self.roundoff * (1 + CANCELLED * size / gamma)

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, a forward pass takes these products; the backward pass, made outside, follows it."""
        if self != BF16:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    def steps(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, steps on a GPU take these products where torch has a switch for them; also that for convolutions, which torch leaves on."""
        return nullcontext() if device.type != "cuda" else float32_products("tf32" if self == TF32 else "ieee")


EXACT = Products("exact")
TF32 = Products("tf32", 2.0**-11)
BF16 = Products("bf16", 2.0**-8)


@contextmanager
def float32_products(kind: str) -> Iterator[None]:
    """Inside, torch's products of float32 on GPUs are of that kind, ieee or tf32; process-wide."""
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    for switch in switches:
        switch.fp32_precision = kind
    try:
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.fp32_precision = was


@dataclass(frozen=True)
class Precision:
    """dtype of parameters, data and updates, and the products."""

    dtype: torch.dtype
    products: Products = EXACT


PRECISIONS = {
    "float64": Precision(torch.float64),
    "float32": Precision(torch.float32),
    "tf32": Precision(torch.float32, TF32),
    "bf16": Precision(torch.float32, BF16),
}


@dataclass(frozen=True)
class Execution:
    """How steps are made.

    products, see :class:`Products`. compile, whether the loss of a batch and its gradients are compiled. cuda_graph, whether steps are recorded and
    replayed (:mod:`featscale.training.graph`). The last two change no more of a curve than rounding does.
    """

    products: Products = EXACT
    compile: bool = False
    cuda_graph: bool = False

    def check(self, device: str) -> None:
        """Raise BadInput unless a device of that type can do this."""
        self.products.check(device)
        for name, value in (("compile", self.compile), ("cuda_graph", self.cuda_graph)):
            require(isinstance(value, bool), f"trainer.{name}", value, "true or false")
        require(not self.cuda_graph or device == "cuda", "trainer.cuda_graph", True, "false: no GPU is used here")

    def refuse(self, who: str) -> None:
        """Raise BadInput for anything that is not plain, on behalf of a model that makes its steps in one way."""
        plain = f"false: {who} makes its steps in one way"
        require(self.products == EXACT, "precision", self.products.name, f"float32 or float64 for {who}")
        require(not self.compile, "trainer.compile", self.compile, plain)
        require(not self.cuda_graph, "trainer.cuda_graph", self.cuda_graph, plain)


PLAIN = Execution()


def cannot_compile(error: Exception) -> BadInput:
    """One line for what torch.compile raised."""
    # Up to torch's advice on how to see more.
    reason = " ".join(str(error).split()).partition(" Set TORCHDYNAMO_VERBOSE")[0]
    return BadInput("trainer.compile", True, f"false: torch.compile fails here: {type(error).__name__}: {reason[:300]}")
