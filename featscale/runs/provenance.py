"""Where a run comes from: the versions, the source's git state and the machine, found without importing what is asked about."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from featscale.runs.files import write_atomically

PACKAGES = ("featscale", "torch", "lightning", "numpy")
GIT_SECONDS = 10.0
# Larger differences are known by their hash only, in bytes.
LARGEST_PATCH = 10_000_000


def provenance(folder: Path) -> dict[str, Any]:
    """The `host`, `versions` and `git` of a :class:`featscale.runs.record.Record`.

    Arguments: folder, where the source lies that makes the run.
    Cost: four calls of git, 10 to 100 ms, once a process.
    """
    return {"host": platform.node(), "versions": versions(), "git": git_state(folder)}


@cache
def versions() -> Mapping[str, str | None]:
    """Versions of Python, featscale, torch, lightning and numpy; None for what is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def git_state(folder: Path) -> Mapping[str, Any] | None:
    """Commit of the repository that `folder` belongs to, whether anything there differs from it, and a hash of the difference.

    Untracked files count as a difference by their names, ignored ones do not.
    Returns: {"commit": 40 hex digits, "dirty": bool, "diff": 12 hex digits or None}; None without git, outside a repository, in a folder
    that the repository ignores (an installed package), before the first commit, or when git takes longer than 10 s.
    """
    found = _source(folder)
    if found is None:
        return None
    commit, status, diff = found
    dirty = bool(status.strip())
    digest = hashlib.sha256(status + b"\0" + diff).hexdigest()[:12] if dirty else None
    return {"commit": commit, "dirty": dirty, "diff": digest}


def keep_difference(folder: Path, into: Path) -> Path | None:
    """Write what differs from the commit to `into`/source-DIFF.patch, once for all runs that come from it.

    The file is for `git apply`; above the patch stand the lines of `git status`, whose untracked files are named only.
    Returns: the file; None where nothing differs, no state is known, or the patch is larger than 10 MB.
    Raises: OSError where it cannot be written.
    """
    found, state = _source(folder), git_state(folder)
    if found is None or state is None or not state["dirty"] or len(found[2]) > LARGEST_PATCH:
        return None
    path = into / f"source-{state['diff']}.patch"
    if not path.exists():
        header = f"# differs from commit {found[0]}\n".encode() + b"".join(
            b"# " + line + b"\n" for line in found[1].splitlines()
        )
        write_atomically(path, header + found[2])
    return path


# Asked once a process: what runs is what was imported at its start, whatever is edited meanwhile.
@cache
def _source(folder: Path) -> tuple[str, bytes, bytes] | None:
    """Commit, `git status` and `git diff` of the repository that `folder` belongs to."""
    if _git(folder, "check-ignore", "--quiet", ".") is not None:
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ":/")
    diff = _git(folder, "diff", "--no-ext-diff", "--no-color", "--binary", "HEAD", "--", ":/")
    if commit is None or status is None or diff is None:
        return None
    return commit.decode().strip(), status, diff


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What ``git ARGUMENTS`` prints in `folder`; None when it fails, is missing, or takes too long."""
    # GIT_DIR and its kin, set inside hooks, would point at another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
