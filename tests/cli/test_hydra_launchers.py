"""Hydra's own launchers still work: a run a job, claimed as everywhere, with the bits of the manifest's workers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from featscale.cli.train import door

SWEEP = ["-m", "model.N=8", "data.M=50", "data.B=4", "steps=30", "seed=0,1", "logger=none", "trainer.accelerator=cpu"]


def curves(runs: Path, *overrides: str) -> dict[str, pl.DataFrame]:
    variables = {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(door()), *SWEEP, *overrides]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return {path.parent.name: pl.read_parquet(path.with_name("curve.parquet")) for path in runs.glob("*/*/record.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("joblib", "hydra_plugins.hydra_joblib_launcher"), ("submitit_local", "hydra_plugins.hydra_submitit_launcher")],
)
def test_a_launcher_of_hydra_trains_the_same_runs(launcher, plugin, tmp_path):
    try:
        found = find_spec(plugin)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"no {plugin}: extra joblib or slurm")
    ours, theirs = curves(tmp_path / "ours"), curves(tmp_path / "theirs", f"hydra/launcher={launcher}")
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 2
    assert all(ours[name].equals(theirs[name]) for name in ours)
