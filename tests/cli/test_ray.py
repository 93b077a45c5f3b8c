"""Sweeps on a local Ray: the curves of a sweep without it."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from featscale.cli.engines.ray import Ray, start, worker
from featscale.cli.train import door
from featscale.errors import BadInput

SWEEP = ["-m", "name=small", "model.N=16", "data.M=100", "data.B=4", "optimizer.eta0=0.05", "seed=0,1,2,3", "steps=300"]
SWEEP += ["logger=none", "trainer.accelerator=cpu"]


def train(runs: Path, *overrides: str) -> subprocess.CompletedProcess:
    variables = {"FEATSCALE_RUNS": str(runs), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(door().parent)}
    command = [sys.executable, str(door()), *SWEEP, *overrides]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=280)


def curves(runs: Path) -> dict[str, pl.DataFrame]:
    return {path.parent.name: pl.read_parquet(path.with_name("curve.parquet")) for path in runs.glob("*/*/record.json")}


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_on_ray_has_the_curves_of_one_without(tmp_path):
    pytest.importorskip("ray", reason="extra ray: pip install 'featscale[ray]'")
    done = train(tmp_path / "ray", "launcher=ray", "launcher.tasks=2")
    assert done.returncode == 0, done.stderr
    assert train(tmp_path / "local").returncode == 0
    here, there = curves(tmp_path / "ray"), curves(tmp_path / "local")
    assert len(here) == 4
    assert all(here[name].equals(there[name]) for name in there)
    again = train(tmp_path / "ray", "launcher=ray")
    assert again.returncode == 0
    assert "nothing is left to train" in again.stderr


def test_without_ray_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"^launcher: ray: an installation with Ray: pip install 'featscale\[ray\]'"):
        start(Ray(), [tmp_path], 1, False)


def test_a_task_is_a_process_of_its_own_and_its_exit_code():
    assert worker([sys.executable, "-c", "import sys; sys.exit(3)"]) == 3
