"""A solvable model whose steps take time and no processor, so that a scheduler has something to interrupt."""

import os
import time

from featscale.training.projected_linear import ProjectedLinear


class Sleepy(ProjectedLinear):
    """The solvable model; every step sleeps SLEEPY seconds, a variable of the environment (none: not at all)."""

    def advance(self, start: int, stop: int) -> None:
        """Make the updates, slowly."""
        time.sleep((stop - start) * float(os.environ.get("SLEEPY", "0")))
        super().advance(start, stop)
