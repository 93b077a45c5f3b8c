"""How many threads products and loops take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, NumPy's products and torch's operations use the calling thread only: small ones lose by sharing.

    Process-wide: callers that make threads of their own inside get one each.
    Cost: some 20 microseconds, after 1.5 milliseconds the first time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _controller() -> ThreadpoolController:
    # SciPy's products, which compiled loops call, are among those that are limited if they are here before.
    import scipy.linalg.blas  # noqa: F401

    return ThreadpoolController()
