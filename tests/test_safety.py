"""A runs folder may come from anybody: reading it executes nothing, and no name or value in it reaches outside of it."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from test_architecture import ROOT, source_files

from featscale.cli import targets
from featscale.cli.app import app as cli
from featscale.cli.compose import compose
from featscale.cli.output import run
from featscale.cli.runs import app
from featscale.cli.train import door
from featscale.errors import BadInput
from featscale.runs.directory import CHECKPOINT, CONFIG, CURVE, RECORD, SCIENCE
from featscale.runs.manifest import MANIFEST, Planned

SMALL = ["model.N=8", "data.M=50", "steps=30", "logger=none", "trainer.accelerator=cpu"]

# Modules that load objects by running what a file says, and functions that run texts.
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
RUNNERS = {"eval", "exec", "compile"}


def dangers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, why) of everything that could run what it loads."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from ((node.lineno, f"imports {name}") for name in names if name.split(".")[0] in PICKLERS)
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in RUNNERS or name.split(".")[-1] in (
            "read_pickle",
            "unsafe_load",
            "full_load",
            "load_from_checkpoint",
        ):
            yield node.lineno, f"calls {name}"
        elif name == "torch.load" and options.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"
        elif (
            name.endswith(".fit") and "ckpt_path" in options and not options.get("weights_only", "").startswith("True")
        ):
            yield node.lineno, "a checkpoint loaded without weights_only=True"
        elif name == "yaml.load" and "Safe" not in options.get("Loader", ""):
            yield node.lineno, "yaml.load without a safe loader"
        elif options.get("allow_pickle", "False") != "False":
            yield node.lineno, "allow_pickle"
        elif options.get("shell", "False") != "False" or name == "os.system":
            yield node.lineno, "a shell"


def test_nothing_in_the_source_can_run_what_it_loads() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {why}"
        for path in source_files(ROOT)
        for line, why in dangers(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "def f():\n    import cloudpickle as c",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "trainer.fit(module, ckpt_path=path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_what_could_run_is_found(source: str) -> None:
    assert list(dangers(ast.parse(source)))


def test_what_is_safe_is_not_reported() -> None:
    safe = """
        torch.load(path, weights_only=True)
        trainer.fit(module, ckpt_path=path, weights_only=True if path else None)
        yaml.safe_load(text)
        np.load(path)
        re.compile(text)
        subprocess.run([program, text])
    """
    assert list(dangers(ast.parse(textwrap.dedent(safe)))) == []


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """train.py's own main in this process, its runs in tmp_path/runs; returns the exit code."""
    monkeypatch.syspath_prepend(str(door().parent))
    module = importlib.import_module("train")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("FEATSCALE_RUNS", str(tmp_path / "runs"))

    def main(*overrides: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, *overrides])
        monkeypatch.setattr(module, "outcomes", [])
        return module.main()

    return main


def plant(folder: Path, canary: Path) -> None:
    """Put what runs when it is unpickled, or loaded by an unsafe YAML reader, into every file of a run."""
    pickled = pickle.dumps(Hostile(canary))
    for name in (CURVE, RECORD, SCIENCE, "lock", "heartbeat"):
        (folder / name).write_bytes(pickled)
    torch.save({"state_dict": Hostile(canary)}, folder / CHECKPOINT)
    for path in folder.glob(f"{CHECKPOINT}*"):
        shutil.copy(folder / CHECKPOINT, path) if path.name != CHECKPOINT else None
    (folder / CONFIG).write_text(f"logger: !!python/object/apply:os.mkdir ['{canary}']\n")


def test_the_planted_files_would_run(tmp_path: Path) -> None:
    """Otherwise the next test shows nothing."""
    (tmp_path / "run").mkdir()
    plant(tmp_path / "run", tmp_path / "canary")
    torch.load(tmp_path / "run" / CHECKPOINT, weights_only=False)
    assert (tmp_path / "canary").exists()
    (tmp_path / "canary").rmdir()
    yaml.unsafe_load((tmp_path / "run" / CONFIG).read_text())
    assert (tmp_path / "canary").exists()


def test_reading_a_hostile_runs_folder_executes_nothing(train, tmp_path: Path) -> None:
    assert train() == 0
    (folder,) = (tmp_path / "runs").glob("*/*/")
    canary = tmp_path / "canary"
    plant(folder, canary)
    for command in (["list"], ["status"], ["sync"], ["collect", "-o", str(tmp_path / "out.parquet")]):
        run(app, [command[0], str(tmp_path / "runs"), *command[1:]])
    # The record cannot be read, then there is none and the run goes on from its checkpoint, which cannot be read.
    assert train() == 2
    (folder / RECORD).unlink()
    assert train() in (0, 2)
    (folder / SCIENCE).unlink()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    torch.save({"state_dict": Hostile(canary)}, folder / CHECKPOINT)
    assert train() == 0
    assert not canary.exists()


def test_a_hostile_manifest_executes_nothing_and_writes_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle in its place, a line whose name leaves the folder, and one whose part is a function to be called."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sweep, canary = tmp_path / "runs" / "sweep", tmp_path / "canary"
    sweep.mkdir(parents=True)
    (sweep / MANIFEST).write_bytes(pickle.dumps(Hostile(canary)))
    for command in (["worker", str(sweep)], ["runs", "status", str(sweep)]):
        run(cli, command)
    # Where a run lies is a matter of the manifest's own folder; what its line says of names and places is not asked.
    places = {"name": "../../out", "paths": {"runs": str(tmp_path / "elsewhere"), "data": "/", "cache": None}}
    for change, code in ((places, 0), ({"model": {"_target_": "os.mkdir", "path": str(canary)}}, 2)):
        science = {"model": {"N": 8}, "seed": code}
        (sweep / MANIFEST).write_text(Planned(resolved() | change, science).to_json() + "\n")
        assert run(cli, ["worker", str(sweep)]) == code
        assert not canary.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def resolved() -> dict[str, Any]:
    """The configuration of a small run."""
    cfg = compose(door().parent / "conf", SMALL)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return config


@pytest.mark.parametrize(
    "part",
    [
        {"_target_": "os.mkdir", "path": "x"},
        {"_target_": "featscale.runs.files.write_atomically"},
        {"_target_": "featscale.training.checkpoint.load"},
        {"_target_": "featscale.training.nothing.There"},
        {"_target_": "datamodules"},
        {"_target_": ["datamodules.circle.Circle"]},
        {"_target_": "datamodules.circle.Circle", "more": [{"_target_": "builtins.exec"}]},
        {"_target_": "featscale.training.network.Network", "architecture": {"_target_": "subprocess.run"}},
    ],
)
def test_a_part_that_is_no_class_of_ours_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"^_target_: .*a class of featscale"):
        targets.check(part)


def test_classes_of_ours_and_of_allowed_packages_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolved()
    for group in ("model", "data", "parameterization", "optimizer", "loss"):
        targets.check(config[group])
    foreign = {"_target_": "collections.Counter"}
    with pytest.raises(BadInput):
        targets.check(foreign)
    monkeypatch.setenv("FEATSCALE_TARGETS", "mine,collections")
    targets.check(foreign)


NAMES = ["../out", "/tmp/out", "a/../../out", "..", ".hidden", "a\\b", "a\nb", "", " a", "x" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_writes_nowhere(name: str, train, tmp_path: Path) -> None:
    quoted = "'" + name.replace("\\", "\\\\") + "'"
    before = sorted(tmp_path.rglob("*"))
    assert train(f"name={quoted}") == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "override",
    ["+data.note='../../out'", "model.N='../8'", "logger.project='../../out'", "precision='../../out'"],
)
def test_a_hostile_value_writes_nothing_outside_the_runs_folder(override: str, train, tmp_path: Path) -> None:
    """Values reach file contents and W&B, never paths: the only paths are made of the name and a hash."""
    train(override)
    outside = [path for path in tmp_path.iterdir() if path.name not in ("runs", "work")]
    assert outside == []
    assert not list((tmp_path / "work").iterdir())
