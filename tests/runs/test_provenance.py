"""Versions and git state, in every state a source folder can be in."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from featscale.runs import provenance as module
from featscale.runs.provenance import keep_difference, provenance, utc_now, versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """The state as it is now, not as this process saw it first."""
    module._source.cache_clear()
    state = module.git_state(folder)
    return None if state is None else dict(state)


def difference(folder: Path) -> str:
    """The hash of what differs from the commit."""
    state = git_state(folder)
    assert state is not None
    assert state["dirty"]
    return state["diff"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clean repository with one commit and one ignored folder."""
    folder = tmp_path / "repository"
    (folder / "installed").mkdir(parents=True)
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("installed/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_repository_is_its_commit(repository: Path) -> None:
    (repository / "sub").mkdir()
    expected = {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False, "diff": None}
    assert git_state(repository) == expected
    assert git_state(repository / "sub") == expected
    (repository / "installed" / "output").touch()
    assert git_state(repository) == expected


def test_every_difference_has_its_own_hash(repository: Path) -> None:
    hashes = []
    for text in ("x = 2\n", "x = 3\n"):
        (repository / "code.py").write_text(text)
        hashes.append(difference(repository))
    git(repository, "add", "code.py")
    hashes.append(difference(repository))
    (repository / "new.py").touch()
    hashes.append(difference(repository))
    assert len(set(hashes)) == 4
    assert all(len(digest) == 12 for digest in hashes)
    git(repository, "reset", "-q", "--hard")
    (repository / "new.py").unlink()
    assert git_state(repository) == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False, "diff": None}


def test_the_difference_is_kept_once_and_can_be_applied(repository: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    git_state(repository)
    assert keep_difference(repository, kept) is None
    (repository / "code.py").write_text("x = 2\n")
    (repository / "new.py").write_text("y = 1\n")
    digest = difference(repository)
    path = keep_difference(repository, kept)
    assert path == kept / f"source-{digest}.patch"
    assert "# ?? new.py" in path.read_text()
    written = path.stat().st_mtime_ns
    assert keep_difference(repository, kept) == path
    assert path.stat().st_mtime_ns == written
    git(repository, "checkout", "--", "code.py")
    git(repository, "apply", str(path))
    assert (repository / "code.py").read_text() == "x = 2\n"


def test_a_difference_that_is_too_large_is_known_by_its_hash(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "code.py").write_text("x = 2\n")
    assert difference(repository)
    monkeypatch.setattr(module, "LARGEST_PATCH", 10)
    assert keep_difference(repository, tmp_path) is None
    assert not list(tmp_path.glob("*.patch"))


def test_what_is_no_source_has_no_state(repository: Path, tmp_path: Path) -> None:
    assert git_state(repository / "installed") is None
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert git_state(tmp_path / "empty") is None


def test_the_variables_of_a_git_hook_do_not_mislead(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "empty" / ".git"))
    state = git_state(repository)
    assert state is not None
    assert state["commit"] == git(repository, "rev-parse", "HEAD")


def test_without_git_there_is_no_state(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_state(repository) is None


def test_a_git_that_hangs_is_not_waited_for(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "GIT_SECONDS", 0.05)
    assert git_state(repository) is None


def test_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == metadata.version("numpy")
    assert set(found) == {"python", "featscale", "torch", "lightning", "numpy"}
    monkeypatch.setattr(module, "PACKAGES", ("featscale-no-such-package",))
    assert versions.__wrapped__()["featscale-no-such-package"] is None


def test_provenance_has_the_names_of_the_record(tmp_path: Path) -> None:
    found = provenance(tmp_path)
    assert found == {"host": platform.node(), "versions": versions(), "git": None}


def test_the_time_is_utc() -> None:
    now = datetime.fromisoformat(utc_now())
    assert now.tzinfo == UTC
    assert abs((datetime.now(UTC) - now).total_seconds()) < 60
