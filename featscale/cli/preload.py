"""What every worker needs: imported once, in the process that the others are forked from. Nothing here starts a thread."""

from __future__ import annotations

import warnings

# Polars warns of forks since its threads do not survive them; no work has been done here, so there are none.
warnings.filterwarnings("ignore", message=".*fork.*")

import hydra.utils  # noqa: E402, F401

import featscale.cli.compose  # noqa: E402
import featscale.training.worker  # noqa: E402, F401
