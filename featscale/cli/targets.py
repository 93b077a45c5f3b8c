"""Which classes a configuration may name as a part of a run: a manifest may come from anybody, and a `_target_` is called."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from featscale.errors import require

PACKAGES = ("featscale.models", "featscale.parameterization", "featscale.training", "datamodules")
VARIABLE = "FEATSCALE_TARGETS"


def check(config: Any) -> None:
    """Refuse a part of the configuration that names anything but classes of our packages, at any depth.

    Classes of others are allowed package by package in the variable FEATSCALE_TARGETS=mine,yours of whoever starts the process.
    Raises: BadInput that names the target, before it is imported where its package is not allowed.
    """
    for target in targets(config):
        allowed = f"a class of {', '.join(PACKAGES)}; others: {VARIABLE}=PACKAGE,…"
        require(permitted(target), "_target_", target, allowed)
        module, _, name = str(target).rpartition(".")
        require(isinstance(_found(module, name), type), "_target_", target, allowed)


def targets(config: Any) -> Iterator[Any]:
    """Every `_target_` in nested containers."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, Sequence) and not isinstance(config, str):
        for entry in config:
            yield from targets(entry)


def permitted(target: Any) -> bool:
    """Whether a target lies in a package that is allowed."""
    more = [name for name in os.environ.get(VARIABLE, "").split(",") if name]
    return isinstance(target, str) and any(target.startswith(f"{package}.") for package in (*PACKAGES, *more))


def _found(module: str, name: str) -> Any:
    """The object, None if there is none."""
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None
