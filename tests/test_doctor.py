"""The doctor's judgements, each good state beside the bad one it must tell from it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from featscale import doctor
from featscale.cli.doctor import doctor as command
from featscale.cli.output import run
from featscale.doctor import Check, Probe

TORCH = {"version": "2.14.1", "cuda": "13.0", "gpus": [], "said": ""}


def test_python_is_judged_by_the_declared_range() -> None:
    assert doctor.python_check("3.12.1", ">=3.11").status == "ok"
    assert doctor.python_check("3.10.9", ">=3.11") == Check(
        "python", "problem", "3.10.9, outside >=3.11", "install Python >=3.11 and featscale in it"
    )


@pytest.mark.parametrize(
    ("version", "extra", "status"),
    [
        ("2.6.4", "", "ok"),
        ("2.7.0+cpu", "", "ok"),
        ("2.6.1", "", "problem"),
        ("3.0", "", "problem"),
        ("3.0", "bench", "warning"),
        ("unknown", "", "problem"),
        (None, "", "problem"),
        (None, "bench", "ok"),
    ],
)
def test_a_package_is_judged_by_its_declared_range(version: str | None, extra: str, status: str) -> None:
    check = doctor.requirement_check(Requirement("lightning>=2.6.4,<3"), extra, version)
    assert check.name == "lightning"
    assert check.status == status
    needs_advice = status != "ok" or version is None
    assert ("pip install 'lightning<3,>=2.6.4'" in check.advice) == needs_advice


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_credential_stealing_release_is_a_problem(name: str, version: str) -> None:
    (check,) = doctor.compromised_checks({name: version})
    assert check.status == "problem"
    assert f"pip uninstall {name}" in check.advice
    assert "rotate" in check.advice


@pytest.mark.parametrize("version", ["2.6.1", "2.6.4", "2.6.6", None])
def test_a_clean_release_is_not_accused(version: str | None) -> None:
    assert list(doctor.compromised_checks({"lightning": version, "pytorch-lightning": version})) == []


def test_imports_are_told_apart() -> None:
    both = doctor.import_check(Probe(TORCH, True))
    mismatch = doctor.import_check(
        Probe({**TORCH, "cuda": None}, False, f"Traceback\nRuntimeError: {doctor.MISMATCH}\n")
    )
    other = doctor.import_check(Probe(TORCH, False, "Traceback\nImportError: libjpeg.so: no such file\n"))
    neither = doctor.import_check(Probe(None, False, "Traceback\nImportError: libcudart.so.13: no such file\n"))
    silent = doctor.import_check(Probe(None, False))
    assert [check.status for check in (both, mismatch, other, neither, silent)] == ["ok", *["problem"] * 4]
    assert "different builds" in mismatch.found
    assert "no CUDA" in mismatch.found
    assert "CPU-only" in mismatch.advice
    assert other.found == "import torchvision fails: ImportError: libjpeg.so: no such file"
    assert neither.found == "import torch fails: ImportError: libcudart.so.13: no such file"
    assert silent.found == "import torch fails: no message"


def test_a_gpu_that_torch_cannot_use_is_a_warning() -> None:
    used = doctor.gpu_check(Probe({**TORCH, "gpus": ["H100", "H100"]}, True), {}, driver=True)
    none = doctor.gpu_check(Probe(TORCH, True), {}, driver=False)
    hidden = doctor.gpu_check(Probe(TORCH, True), {"CUDA_VISIBLE_DEVICES": ""}, driver=True)
    old = doctor.gpu_check(Probe({**TORCH, "said": "driver too old"}, True), {}, driver=True)
    cpu_build = doctor.gpu_check(Probe({**TORCH, "cuda": None}, True), {}, driver=True)
    unknown = doctor.gpu_check(Probe(None, False), {}, driver=True)
    assert [check.status for check in (used, none, hidden)] == ["ok"] * 3
    assert used.found == "H100, H100"
    assert [check.status for check in (old, cpu_build, unknown)] == ["warning"] * 3
    assert "driver too old" in old.found
    assert "without CUDA" in cpu_build.found


@pytest.mark.parametrize(
    ("threads", "status"),
    [(None, "ok"), ("1", "ok"), ("4", "ok"), ("5", "warning"), ("0", "warning"), ("-1", "warning"), ("two", "warning")],
)
def test_more_threads_than_cores_are_a_warning(threads: str | None, status: str) -> None:
    environment = {} if threads is None else {"OMP_NUM_THREADS": threads}
    assert doctor.threads_check(4, environment).status == status


def test_a_runs_folder_to_be_made_is_ok_and_is_not_made(tmp_path: Path) -> None:
    folder, disk = doctor.runs_folder_checks(tmp_path / "deep" / "runs")
    assert folder.status == "ok"
    assert "will be made" in folder.found
    assert disk.name == "disk"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    assert "will be made" not in next(doctor.runs_folder_checks(tmp_path / "runs")).found


def test_a_runs_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    folder, _ = doctor.runs_folder_checks(tmp_path / "runs")
    assert folder.status == "problem"
    assert str(tmp_path / "runs") in folder.found


@pytest.mark.parametrize(("free", "status"), [(5e9, "ok"), (1e9, "warning"), (5e7, "problem")])
def test_free_disk_space_is_judged(free: float, status: str) -> None:
    assert doctor.disk_check(free).status == status


def test_mnist_is_found_packed_or_unpacked(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    nothing = doctor.data_check({}, tmp_path)
    assert nothing.status == "warning"
    assert "FEATSCALE_DATA" in nothing.advice
    names = [*doctor.MNIST_FILES[:2], *(f"{name}.gz" for name in doctor.MNIST_FILES[2:])]
    for name in names[:-1]:
        (raw / name).touch()
    assert doctor.data_check({}, tmp_path).found == f"{raw} lacks {names[-1].removesuffix('.gz')}"
    (raw / names[-1]).touch()
    assert doctor.data_check({}, tmp_path).status == "ok"
    assert doctor.data_check({"FEATSCALE_DATA": ""}, tmp_path).status == "ok"
    assert doctor.data_check({"FEATSCALE_DATA": str(tmp_path / "data")}, tmp_path / "elsewhere").status == "ok"
    assert doctor.data_check({"FEATSCALE_DATA": str(tmp_path)}, tmp_path).status == "warning"


def test_wandb_online_needs_a_key_and_offline_none(tmp_path: Path) -> None:
    secret = "0123456789abcdef"
    assert doctor.wandb_check({}, tmp_path) == Check("wandb mode", "ok", "offline, no key is stored")
    assert doctor.wandb_check({"WANDB_MODE": "online"}, tmp_path).status == "warning"
    given = doctor.wandb_check({"WANDB_MODE": "online", "WANDB_API_KEY": secret}, tmp_path)
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {secret}\n")
    stored = doctor.wandb_check({"WANDB_MODE": "online"}, tmp_path)
    assert given == stored == Check("wandb mode", "ok", "online, a key is stored")
    elsewhere = {"WANDB_MODE": "online", "WANDB_BASE_URL": "https://wandb.example.org/"}
    assert doctor.wandb_check(elsewhere, tmp_path).status == "warning"
    (tmp_path / "other").write_text("machine wandb.example.org login user password x\n")
    assert doctor.wandb_check({**elsewhere, "NETRC": str(tmp_path / "other")}, tmp_path).status == "ok"
    (tmp_path / ".netrc").write_text("not a netrc file")
    assert doctor.wandb_check({"WANDB_MODE": "online"}, tmp_path).status == "warning"


def test_an_unknown_wandb_mode_is_a_warning(tmp_path: Path) -> None:
    check = doctor.wandb_check({"WANDB_MODE": "onlien"}, tmp_path)
    assert check.status == "warning"
    assert "offline" in check.advice


def fake_packages(folder: Path, torchvision: str) -> str:
    """A search path with a stand-in torch that has no GPU, and a torchvision that runs the given code."""
    (folder / "torch").mkdir()
    code = """
        from types import SimpleNamespace
        __version__ = "2.14.1+cpu"
        version = SimpleNamespace(cuda=None)
        cuda = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
    """
    (folder / "torch" / "__init__.py").write_text(textwrap.dedent(code))
    (folder / "torchvision.py").write_text(torchvision)
    return str(folder)


@pytest.mark.parametrize(
    ("torchvision", "status"), [("x = 1", "ok"), (f"raise RuntimeError({doctor.MISMATCH!r})", "problem")]
)
def test_the_probe_sees_a_mismatched_pair(
    torchvision: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", fake_packages(tmp_path, torchvision))
    seen = doctor.probe()
    assert seen.torch == {"version": "2.14.1+cpu", "cuda": None, "gpus": [], "said": ""}
    check = doctor.import_check(seen)
    assert check.status == status
    assert (doctor.MISMATCH in check.found) == (status == "problem")


def test_the_probe_survives_a_crash_and_a_hang() -> None:
    crashed = doctor.probe("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (crashed.torch, crashed.torchvision) == (None, False)
    assert "signal 9" in crashed.error
    hanging = doctor.probe("""print('{"version": "2"}', flush=True); import time; time.sleep(60)""", timeout=0.5)
    assert (hanging.torch, hanging.torchvision) == ({"version": "2"}, False)
    assert hanging.error == "still not done after 0.5 s"


def test_declared_packages_come_with_their_extra() -> None:
    extras = {requirement.name: extra for requirement, extra in doctor.declared()}
    assert extras["torch"] == extras["packaging"] == ""
    assert extras["jax"] == "bench"
    assert extras["ray"] == "ray"
    assert "pre-commit" not in extras


def test_an_absent_package_has_no_version() -> None:
    assert doctor.installed("pytest") is not None
    assert doctor.installed("featscale-no-such-package") is None


GOOD = Check("torch", "ok", "2.14.1")
ODD = Check("data", "warning", "none", "optional: pip install 'x[y]'")
BAD = Check("lightning", "problem", "not installed", "pip install lightning")


@pytest.mark.parametrize(("checks", "code"), [((GOOD,), 0), ((GOOD, ODD), 0), ((GOOD, ODD, BAD), 1)])
def test_the_command_exits_1_on_a_problem(
    checks: tuple[Check, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda runs: checks)
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(command)
    assert run(app, ["--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (code == 0)
    assert report["checks"][0] == {"name": "torch", "status": "ok", "found": "2.14.1", "advice": ""}
    assert len(report["checks"]) == len(checks)
    assert run(app, []) == code
    table = capsys.readouterr().out
    assert ("not usable" in table) == (code == 1)
    assert ("'x[y]'" in table) == (ODD in checks)


@pytest.mark.slow
def test_this_installation_is_usable(tmp_path: Path) -> None:
    checks = doctor.examine(tmp_path / "runs")
    assert doctor.usable(checks), [check for check in checks if check.status == "problem"]
    assert {"featscale", "python", "torch", "import torch, torchvision", "gpu", "disk", "data"} <= {
        c.name for c in checks
    }


@pytest.mark.parametrize(
    ("sbatch", "ping", "status", "found"),
    [
        (None, (1, ""), "ok", "no sbatch"),
        ("/usr/bin/sbatch", (0, "Slurmctld(primary) at login is UP\n"), "ok", "login is UP"),
        ("/usr/bin/sbatch", (0, "Slurmctld(primary) at login is DOWN\n"), "warning", "no controller answers"),
        ("/usr/bin/sbatch", (1, "Could not establish a configuration source"), "warning", "no controller answers"),
    ],
)
def test_slurm_is_reported(sbatch: str | None, ping: tuple[int, str], status: str, found: str) -> None:
    check = doctor.slurm_check(sbatch, ping)
    assert (check.name, check.status) == ("slurm", status)
    assert found in check.found
    assert bool(check.advice) == (sbatch is None or status != "ok")


def test_asking_slurm_survives_its_absence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = doctor.slurm_ping()
    assert code == 1
    assert "scontrol" in said
