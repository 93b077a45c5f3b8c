"""A stand-in for CUDA graphs: the operations of a run, as torch dispatches them, kept with the very tensors they worked on, and done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Keeps (operation, arguments, result) of all that torch does inside, on every device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Sequence[Any], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """The same operations on the same memory: what is new in a result goes to where it was, as in a CUDA graph."""
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tape(run: Callable[[], None]) -> Callable[[], None]:
    """What replays what `run` did."""
    with Tape() as recorded:
        run()

    def replay() -> None:
        with torch.no_grad():
            recorded.replay()

    return replay
