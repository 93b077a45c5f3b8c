"""A solvable model whose steps take time and no processor, so that a scheduler has something to interrupt."""

import os
import time
from typing import Any

from featscale.training.projected_linear import ProjectedLinear


class Sleepy(ProjectedLinear):
    """The solvable model; until it is resumed from a checkpoint every step sleeps SLEEPY seconds, a variable of the environment (none: 0)."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.sleep = 0.0

    def on_fit_start(self) -> None:
        """Begin, quickly if this is not the beginning."""
        super().on_fit_start()
        self.sleep = float(os.environ.get("SLEEPY", "0")) * (self.step == 0)

    def advance(self, start: int, stop: int) -> None:
        """Make the updates, slowly."""
        time.sleep((stop - start) * self.sleep)
        super().advance(start, stop)
