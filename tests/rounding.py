"""Products whose operands are rounded, on any device: what tf32 does on a GPU, bit for bit in the operands, and sums in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward)
TF32_BITS, BF16_BITS, FLOAT32_BITS = 10, 7, 23


def rounded(x: Tensor, bits: int) -> Tensor:
    """float32 numbers to the nearest with that many bits after the leading one, ties to even."""
    drop = FLOAT32_BITS - bits
    i = x.detach().clone().view(torch.int32)
    i = (i + (1 << (drop - 1)) - 1 + ((i >> drop) & 1)) >> drop << drop
    return torch.where(x.isfinite(), i.view(torch.float32), x)


class Rounded(TorchDispatchMode):
    """Inside, all products of float32, forward and backward, round their operands to so many bits; `count` of them were made."""

    def __init__(self, bits: int = TF32_BITS) -> None:
        super().__init__()
        self.bits, self.count = bits, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PRODUCTS:
            self.count += 1
            args = [self._operand(one) for one in args]
        return func(*args, **(kwargs or {}))

    def _operand(self, one: Any) -> Any:
        return rounded(one, self.bits) if isinstance(one, Tensor) and one.dtype == torch.float32 else one
