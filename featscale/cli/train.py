"""Where the training door is, and `featscale train`, which opens it from anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from featscale.errors import BadInput

PACKAGE = Path(__file__).resolve().parents[1]


def door() -> Path:
    """The train.py of this installation: the checkout's, or the one that a wheel carries.

    Raises: BadInput in one line if neither is whole.
    """
    for folder in (PACKAGE.parent, PACKAGE / "_train"):
        if (folder / "train.py").is_file() and (folder / "conf" / "train.yaml").is_file():
            return folder / "train.py"
    raise BadInput(
        "featscale", str(PACKAGE), "an installation with train.py and conf/: install the wheel or the checkout again"
    )


def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="What train.py takes: experiment=NAME, key=value, -m, --cfg job.")
    ] = None,
) -> None:
    """Train a run or a sweep from anywhere; the same as `python train.py …` in a checkout.

    Example: featscale train -m experiment=demo_gamma
    """
    raise typer.Exit(subprocess.run([sys.executable, str(door()), *(overrides or [])], check=False).returncode)
