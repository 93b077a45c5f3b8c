"""What is shipped: the wheel's contents, and that it works from another folder without the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def output_of(command: list[str], folder: Path, **environment: str) -> str:
    """What `command` prints when run in `folder`; fails with its stderr."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shipped(folder: str) -> set[str]:
    """The files under `folder` of the checkout that a wheel should carry, by path from the top."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the source distribution, with what is installed here (no network)."""
    folder = tmp_path_factory.mktemp("dist")
    output_of([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (built,) = folder.glob("featscale-*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder holding the installed wheel; as PYTHONPATH it comes before the checkout's own installation."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    output_of([*pip, str(wheel)], folder)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_packages_the_training_door_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = shipped("featscale") | shipped("datamodules")
    expected |= {f"featscale/_train/{name}" for name in {"train.py"} | shipped("conf")}
    assert expected - names == set()
    rest = names - expected
    assert all(".dist-info/" in name for name in rest), rest
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in rest)


@pytest.mark.slow
def test_the_installed_command_works_from_another_folder(site: Path, tmp_path: Path) -> None:
    where = output_of(
        [sys.executable, "-c", "import featscale; print(featscale.__file__)"], tmp_path, PYTHONPATH=str(site)
    )
    assert Path(where.strip()).is_relative_to(site)
    command = [str(site / "bin" / "featscale"), "theory", "exponents", "--alpha", "1.5", "--beta", "0.5", "--json"]
    assert "regime" in json.loads(output_of(command, tmp_path, PYTHONPATH=str(site)))


@pytest.mark.slow
def test_the_installed_training_door_finds_its_configuration(site: Path, tmp_path: Path) -> None:
    train = str(site / "featscale" / "_train" / "train.py")
    composed = output_of([sys.executable, train, "--cfg", "job"], tmp_path, PYTHONPATH=str(site))
    assert {"model:", "data:", "trainer:"} <= set(composed.splitlines())


@pytest.mark.parametrize(("version", "carried"), [("standard", {"train.py", "conf"}), ("editable", set())])
def test_an_editable_install_copies_no_training_door(version: str, carried: set[str]) -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    build_data: dict[str, Any] = {"force_include": {}}
    hook.TrainingDoor(str(ROOT), {}, None, None, "", "wheel").initialize(version, build_data)
    assert set(build_data["force_include"]) == carried
