"""A solvable model whose steps take time and no processor, so that a scheduler has something to interrupt."""

import os
import time
from typing import Any

from featscale.training.projected_linear import ProjectedLinear


class Sleepy(ProjectedLinear):
    """The solvable model, whose every step sleeps SLEEPY seconds, a variable of the environment (none: 0), and SLEEPY_RESUMED seconds once it
    was resumed from a checkpoint."""

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.sleep = 0.0

    def on_fit_start(self) -> None:
        """Begin, at the pace of a beginning or of a resumption."""
        super().on_fit_start()
        self.sleep = float(os.environ.get("SLEEPY_RESUMED" if self.step else "SLEEPY", "0"))

    def advance(self, start: int, stop: int) -> None:
        """Make the updates, slowly."""
        time.sleep((stop - start) * self.sleep)
        super().advance(start, stop)
