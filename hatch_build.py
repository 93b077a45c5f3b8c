"""Build hook: a wheel carries the training door and its configuration; an editable install uses the checkout's own."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TrainingDoor(BuildHookInterface):
    """Put train.py and conf/ beside each other in featscale/_train/, so that train.py finds conf/ as in a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Hatchling's own force-include would copy both into an editable install too, where they go stale.
        if version != "editable":
            build_data["force_include"].update({name: f"featscale/_train/{name}" for name in ("train.py", "conf")})
