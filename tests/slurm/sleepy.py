"""A solvable model whose steps take time and no processor, so that a scheduler has something to interrupt."""

import os
import time

from featscale.training.projected_linear import ProjectedLinear


class Sleepy(ProjectedLinear):
    """The solvable model; in a job's first life every step sleeps SLEEPY seconds, a variable of the environment (none: not at all)."""

    def advance(self, start: int, stop: int) -> None:
        """Make the updates, slowly."""
        first = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        time.sleep((stop - start) * float(os.environ.get("SLEEPY", "0")) * first)
        super().advance(start, stop)
