"""What a worker is told and what it tells; light, for those who only start workers and listen to them."""

from __future__ import annotations

from dataclasses import dataclass

# The groups of the configuration that describe the parts of a run: the function that makes its module, and what that takes.
PARTS = ("model", "data", "parameterization", "optimizer", "loss")
# What `precision` may be; :mod:`featscale.training.execution` says what each is.
PRECISION_NAMES = ("float64", "float32", "tf32", "bf16")


@dataclass(frozen=True)
class Policy:
    """How a worker works.

    retry_failed, train failed runs again. most >= 1, the most runs trained together. share >= 1, how many workers share the runs: of the runs
    that could be trained together each takes its part only. only, hashes of the runs to train; None: all.
    """

    retry_failed: bool = False
    most: int = 64
    share: int = 1
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class Event:
    """What a worker tells of a run, name/hash.

    status: "running" at `step` of `steps`; "done", "diverged" or "failed", how it ended now; "finished" or "failed" before, and skipped;
    "busy", in other hands; "refused", for a `cause` that is bad input or damage.
    """

    run: str
    status: str
    step: int = 0
    steps: int = 0
    cause: str = ""
