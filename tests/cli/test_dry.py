"""A dry run: counts what is left, measures a few steps of each kind, writes nothing."""

import importlib
import json
import re
import sys
import time

import pytest

from featscale.cli.crew import Crew
from featscale.cli.train import door
from featscale.cli.worker import work
from featscale.runs.manifest import manifests
from featscale.training import estimate
from featscale.training.orders import Policy

SMALL = ("model.N=8", "data.M=50", "data.B=4")


@pytest.fixture
def train(monkeypatch, capsys, tmp_path):
    """train.py's own main in this process; returns (exit code, stdout)."""
    monkeypatch.syspath_prepend(str(door().parent))
    monkeypatch.setenv("FEATSCALE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    module = importlib.import_module("train")

    def main(*overrides, common=SMALL):
        monkeypatch.setattr(sys, "argv", ["train.py", "logger=none", "trainer.accelerator=cpu", *common, *overrides])
        monkeypatch.setattr(module, "outcomes", [])
        return module.main(), capsys.readouterr().out

    return main


def test_a_dry_sweep_measures_each_kind_once_and_writes_nothing(train, tmp_path):
    code, out = train("-m", "dry_run=true", "seed=0,1,2", "model.N=8,16", "steps=1000", "trainer.workers=2")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[0] == "runs"
    assert [line.split()[0] for line in lines[1:3]] == ["3", "3"]
    assert [line.split()[-1] for line in lines[1:3]] == ["model.N=8", "model.N=16"]
    assert lines[-1].startswith("6 of 6 runs are left: about ")
    assert "with 2 workers" in lines[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "sweep",
    [
        ("seed=0,1,2,3,4,5", "parameterization.gamma=0,1", "steps=3000", "model.N=64", "data.M=2000"),
        ("seed=0,1,2,3", "model=mlp", "data=circle", "model.N=32", "steps=300", "optimizer.eta0=0.05"),
    ],
    ids=["solvable", "circle"],
)
def test_the_estimate_is_what_the_sweep_takes(sweep, train, tmp_path, monkeypatch):
    """Processor time of this process on both sides, so that a busy machine changes neither, and what is imported and
    compiled once is there before; within a factor of two."""
    train("-m", *sweep, "dry_run=true", common=())
    monkeypatch.setattr(estimate, "clock", time.process_time)
    _, out = train("-m", *sweep, "dry_run=true", common=())
    table = [line.split() for line in out.splitlines()[1:-1]]
    estimated = sum(int(line[0]) * float(line[2]) for line in table)
    assert train("-m", *sweep, "launcher=none", common=())[0] == 0
    began = time.process_time()
    result, _ = work(manifests(tmp_path / "runs" / "adhoc"), Crew(), Policy(), live=False)
    assert set(result["trained"]) == {"done"}
    assert estimated / 2 < time.process_time() - began < 2 * estimated


def test_runs_are_estimated_in_the_groups_of_a_worker(train, tmp_path):
    """… as the records name them, by shape; six workers would have a run each."""
    overrides = ("-m", "seed=0,1,2", "parameterization.gamma=0,1", "steps=20")
    _, out = train(*overrides, "dry_run=true")
    assert out.splitlines()[1].split()[:2] == ["6", "3"]
    assert out.splitlines()[1].endswith("parameterization.gamma=0,1")
    _, out = train(*overrides, "dry_run=true", "trainer.workers=6")
    assert [line.split()[:2] for line in out.splitlines()[1:-1]] == [["3", "1"], ["3", "1"]]
    assert train(*overrides)[0] == 0
    members = {json.loads(path.read_text())["group_members"] for path in tmp_path.rglob("record.json")}
    assert members == {3}


def test_operations_are_those_of_the_records(train, tmp_path):
    """FLOPs are counted, not measured: the forecast is the sum over the records that the sweep leaves."""
    overrides = ("-m", "seed=0,1", "steps=20,40")
    _, out = train(*overrides, "dry_run=true")
    (forecast,) = re.findall(r"([\d.e+]+) FLOPs; at most", out)
    assert train(*overrides)[0] == 0
    from featscale.runs.table import runs_table

    assert float(forecast) == pytest.approx(runs_table(tmp_path / "runs")["flops"].sum(), rel=5e-3)


def test_only_what_is_left_is_counted(train):
    assert train("-m", "seed=0,1", "steps=20")[0] == 0
    _, out = train("-m", "seed=0,1,2", "steps=20", "dry_run=true")
    assert out.splitlines()[-1].startswith("1 of 3 runs are left: ")
    _, out = train("-m", "seed=0,1", "steps=20", "dry_run=true")
    assert out.splitlines()[-1].startswith("0 of 2 runs are left: ")


def test_a_single_run_can_be_dry_too(train, tmp_path):
    code, out = train("steps=100", "dry_run=true")
    assert code == 0
    assert out.splitlines()[-1].startswith("1 of 1 runs are left: ")
    assert not (tmp_path / "runs").exists()


def test_bad_input_is_told_and_the_rest_is_estimated(train):
    code, out = train("-m", "steps=20", "precision=float64,float16", "dry_run=true")
    assert code == 2
    assert "1 of 1 runs are left" in out
