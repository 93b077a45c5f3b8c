"""Sweeps are expanded to what Hydra would compose run by run."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from featscale.cli import compose, sweep
from featscale.cli.expand import Composer, runs
from featscale.cli.train import door
from featscale.errors import BadInput
from featscale.runs.manifest import Planned

CONF = door().parent / "conf"


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["name=a", "model.N=4,8", "seed=range(0,3)"], 6),
        (["experiment=demo_regimes", "trainer.threads=1", "seed=0,1"], 12),
        (["model=projected_linear,mlp", "data=power_law,circle", "+model.depth=3", "optimizer.eta0=1e-3"], 4),
        (["data.B=inf,8", "name='x y'", "trainer={chunk: 7}"], 2),
    ],
)
def test_every_run_is_what_hydra_composes(overrides: list[str], jobs: int) -> None:
    with Composer(CONF) as composer:
        expansion = composer.expand(overrides)
        ours = []
        for job in expansion.jobs:
            with composer.config(job) as cfg:
                ours.append(cfg.copy())
    assert (len(ours), expansion.basic) == (jobs, True)
    for job, cfg in list(zip(expansion.jobs, ours, strict=True))[:: max(1, jobs // 4)]:
        try:
            theirs = compose.compose(CONF, job)
        except BadInput:
            # What the checks refuse, they refuse for both.
            with pytest.raises(BadInput):
                compose.check(cfg)
            continue
        assert OmegaConf.to_container(cfg, resolve=True) == OmegaConf.to_container(theirs, resolve=True)
        assert compose.science(cfg) == compose.science(theirs)


def test_the_runs_of_an_experiment_are_all_different() -> None:
    found = list(runs(CONF, ["experiment=demo_regimes"]))
    assert len({run.hash for run in found if isinstance(run, Planned)}) == 6
    assert {run.config["data"]["beta"] for run in found if isinstance(run, Planned)} == {0.5, 1.25, 1.5}


def test_bad_input_in_one_run_leaves_the_others() -> None:
    good, bad = runs(CONF, ["seed=0,-1"])
    assert isinstance(good, Planned)
    assert isinstance(bad, BadInput)
    assert str(bad).startswith("seed: -1: ")


@pytest.mark.parametrize("overrides", [["model.widht=1,2"], ["model=mlpp,mlp"], ["seed=1,(2"], ["nothing=1"]])
def test_overrides_that_hydra_refuses_are_one_line(overrides: list[str]) -> None:
    try:
        found = list(runs(CONF, overrides))
    except BadInput as error:
        found = [error]
    assert any(isinstance(each, BadInput) and "\n" not in str(each) for each in found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "seed=0,1"], ["seed=0,1"]),
        (["seed=0", "--multirun"], ["seed=0"]),
        (["seed=0"], None),
        (["-m", "--cfg", "job"], None),
        (["-m", "hydra/launcher=joblib"], None),
    ],
)
def test_what_is_a_sweep_of_ours(arguments: list[str], expected: list[str] | None) -> None:
    assert sweep.asked(arguments) == expected


def test_a_manifest_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATSCALE_RUNS", str(tmp_path))
    for _ in range(2):
        (manifest,), planned, refused = sweep.fill(CONF, ["name=a", "seed=0,1"])
        assert (manifest.folder, len(planned), refused, len(manifest.read())) == (tmp_path / "a", 2, 0, 2)
    assert [run.config for run in manifest.read()] == [run.config for run in planned]
