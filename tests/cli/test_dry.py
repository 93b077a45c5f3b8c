"""A dry run: counts what is left, measures a few steps of each kind, writes nothing."""

import importlib
import re
import sys

import pytest

from featscale.cli.train import door

SMALL = ["model.N=8", "data.M=50", "data.B=4", "logger=none", "trainer.accelerator=cpu"]


@pytest.fixture
def train(monkeypatch, capsys, tmp_path):
    """train.py's own main in this process; returns (exit code, stdout)."""
    monkeypatch.syspath_prepend(str(door().parent))
    monkeypatch.setenv("FEATSCALE_RUNS", str(tmp_path / "runs"))
    module = importlib.import_module("train")

    def main(*overrides):
        monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, *overrides])
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
