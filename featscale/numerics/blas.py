"""How many threads NumPy's matrix products take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, NumPy's products use the calling thread only: small ones lose by sharing, and callers share the work themselves.

    Cost: some 20 microseconds, after 1.5 milliseconds the first time.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
