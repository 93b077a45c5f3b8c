"""What `featscale doctor` looks at: the installed packages, the machine, the data and the runs folder.

Every function takes what it judges as arguments and returns :class:`Check`; only :func:`examine` and :func:`probe`
look at the machine. Nothing here imports torch: a separate Python does, so that a broken or hanging installation is
reported instead of suffered. Nothing imports lightning at all, since a compromised release acts when imported.
"""

from __future__ import annotations

import json
import netrc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

Status = Literal["ok", "warning", "problem"]

# Releases that steal credentials when imported: GitHub advisory GHSA-w37p-236h-pfx3.
COMPROMISED = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
# What importing torchvision says when it was built for another torch, as a rule CUDA beside CPU-only.
MISMATCH = "operator torchvision::nms does not exist"
# Extras that a user of the package may want; `dev` concerns a checkout only.
EXTRAS_NOT_SHOWN = ("dev",)
MNIST_FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
WANDB_MODES = ("online", "offline", "disabled", "shared")
LOW_DISK, FULL_DISK = 2e9, 1e8  # bytes

PROBE = """
import json, warnings
import torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    available = torch.cuda.is_available()
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if available else []
said = " ".join(str(caught[-1].message).split()) if caught else ""
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus, "said": said}), flush=True)
import torchvision
"""


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, how it stands, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Probe:
    """What another Python saw on importing torch (None: it failed), then torchvision; `error` is what it wrote."""

    torch: Mapping[str, Any] | None
    torchvision: bool
    error: str = ""


def usable(checks: Sequence[Check]) -> bool:
    """True unless one of the checks is a problem; warnings leave the package usable."""
    return all(check.status != "problem" for check in checks)


def python_check(version: str, allowed: str) -> Check:
    """Python's own `version` against the range `allowed` that featscale declares."""
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return Check("python", "ok", version)
    return Check("python", "problem", f"{version}, outside {allowed}", f"install Python {allowed} and featscale in it")


def requirement_check(requirement: Requirement, extra: str, version: str | None) -> Check:
    """The installed `version` (None: not installed) against what featscale, or one of its extras, declares."""
    name, allowed = requirement.name, str(requirement.specifier) or "any version"
    install = f"pip install '{name}{requirement.specifier}'"
    if version is None:
        if extra:
            return Check(name, "ok", "not installed", f"optional (extra {extra}): {install}")
        return Check(name, "problem", "not installed", install)
    try:
        within = requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:  # packaging before 26; from 26 on the answer is False
        within = False
    if within:
        return Check(name, "ok", version)
    return Check(name, "warning" if extra else "problem", f"{version}, outside {allowed}", install)


def compromised_checks(versions: Mapping[str, str | None]) -> Iterator[Check]:
    """A problem for each installed release that is known to steal credentials; nothing when there is none."""
    for name, releases in COMPROMISED.items():
        if versions.get(name) in releases:
            yield Check(
                f"{name} release",
                "problem",
                f"{versions[name]}, a release that steals credentials when imported",
                f"import nothing from it; pip uninstall {name}; take every token, key and password this account could "
                "read as stolen and rotate it; then pip install 'lightning>=2.6.4,<3'",
            )


def import_check(seen: Probe) -> Check:
    """Whether torch and torchvision can be imported together."""
    name, last = "import torch, torchvision", seen.error.strip().splitlines()[-1:] or ["no message"]
    reinstall = "pip install --force-reinstall torch torchvision"
    if seen.torch is None:
        return Check(name, "problem", f"import torch fails: {last[0].strip()}", reinstall)
    build = f"CUDA {seen.torch['cuda']}" if seen.torch["cuda"] else "no CUDA"
    if seen.torchvision:
        return Check(name, "ok", f"both import; torch is built for {build}")
    if MISMATCH in seen.error:
        return Check(
            name,
            "problem",
            f"torch {seen.torch['version']} (built for {build}) and torchvision are of different builds ({MISMATCH})",
            f"take both from the same place, and no CPU-only torch beside a CUDA torchvision: {reinstall}; in a "
            "checkout: make clean, then make test",
        )
    return Check(name, "problem", f"import torchvision fails: {last[0].strip()}", reinstall)


def gpu_check(seen: Probe, environment: Mapping[str, str], driver: bool) -> Check:
    """The GPUs torch can use; a warning when the machine has NVIDIA's `driver` and torch still sees none."""
    if seen.torch is None:
        return Check("gpu", "warning", "unknown: torch cannot be imported", "see: import torch, torchvision")
    if gpus := seen.torch["gpus"]:
        return Check("gpu", "ok", ", ".join(gpus))
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return Check("gpu", "ok", f"none: CUDA_VISIBLE_DEVICES={hidden!r} hides them; runs use the CPU")
    if not driver:
        return Check("gpu", "ok", "none; runs use the CPU")
    why = seen.torch["said"] or ("torch is built without CUDA" if not seen.torch["cuda"] else "no reason given")
    advice = "compare the driver's CUDA version (nvidia-smi) with the one torch is built for, and update the older"
    return Check("gpu", "warning", f"a driver is installed but torch sees no GPU: {why}", advice)


def threads_check(cores: int, environment: Mapping[str, str]) -> Check:
    """How many threads one process will use against the `cores` it may use."""
    text = environment.get("OMP_NUM_THREADS")
    if text is None:
        return Check("cores", "ok", f"{cores}; OMP_NUM_THREADS is not set: one process uses them all")
    found = f"{cores}; OMP_NUM_THREADS={text}"
    if not text.isdecimal() or int(text) < 1:
        return Check("cores", "warning", found, "set OMP_NUM_THREADS to a whole number >= 1, or unset it")
    if int(text) > cores:
        return Check("cores", "warning", found, f"more threads than cores slow each other down: at most {cores}")
    return Check("cores", "ok", found)


def runs_folder_checks(runs: Path) -> Iterator[Check]:
    """Whether runs can be written to `runs` (which need not exist yet, and is not made), and the disk's free space."""
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if os.path.exists(path))
    made = "" if folder == runs.absolute() else " (will be made)"
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Check("runs folder", "ok", f"{runs.absolute()}{made}, writable")
    except OSError as error:
        found = f"{runs.absolute()}: cannot write in {folder}: {error.strerror}"
        yield Check("runs folder", "problem", found, "work in a folder you may write to, or free the disk")
    yield disk_check(shutil.disk_usage(folder).free)


def disk_check(free: float) -> Check:
    """The `free` space in bytes where runs are written."""
    found = f"{free / 1e9:.1f} GB free"
    if free < FULL_DISK:
        return Check("disk", "problem", found, "free some space: a run that cannot write its record is lost")
    if free < LOW_DISK:
        return Check("disk", "warning", found, "enough for small runs; sweeps with checkpoints need a few GB")
    return Check("disk", "ok", found)


def data_check(environment: Mapping[str, str], working: Path) -> Check:
    """Whether MNIST's four archives lie in ``FEATSCALE_DATA``, or in ``data`` under the folder `working`."""
    root = Path(environment.get("FEATSCALE_DATA") or working / "data")
    raw = root / "MNIST" / "raw"
    missing = [name for name in MNIST_FILES if not (raw / name).is_file() and not (raw / f"{name}.gz").is_file()]
    if not missing:
        return Check("data", "ok", f"MNIST in {raw}")
    found = f"no MNIST in {raw}" if len(missing) == len(MNIST_FILES) else f"{raw} lacks {', '.join(missing)}"
    advice = "only image tasks need it: set FEATSCALE_DATA to a folder that holds MNIST/raw/*-ubyte.gz"
    return Check("data", "warning", found, advice)


def wandb_check(environment: Mapping[str, str], home: Path) -> Check:
    """The mode W&B will use and, online, whether a key is stored; asks nobody over the network, shows no key."""
    mode = environment.get("WANDB_MODE") or "offline"
    if mode not in WANDB_MODES:
        return Check(
            "wandb mode", "warning", f"WANDB_MODE={mode}", f"set WANDB_MODE to one of {', '.join(WANDB_MODES)}"
        )
    key = "a key is stored" if wandb_key_stored(environment, home) else "no key is stored"
    if mode in ("online", "shared") and key.startswith("no"):
        return Check("wandb mode", "warning", f"{mode}, {key}", "run wandb login, or set WANDB_MODE=offline")
    return Check("wandb mode", "ok", f"{mode}, {key}")


def wandb_key_stored(environment: Mapping[str, str], home: Path) -> bool:
    """True if ``WANDB_API_KEY`` is set or the netrc file has an entry for the W&B host; an unreadable file has none."""
    if environment.get("WANDB_API_KEY"):
        return True
    host = environment.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    candidates = [Path(environment["NETRC"])] if environment.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for path in filter(Path.is_file, candidates):
        try:
            return netrc.netrc(path).authenticators(host) is not None
        except (netrc.NetrcParseError, OSError):
            return False
    return False


def slurm_check(sbatch: str | None, ping: tuple[int, str]) -> Check:
    """Slurm for launcher=slurm: where `sbatch` is (None: nowhere), and exit code and text of ``scontrol ping``."""
    if sbatch is None:
        return Check("slurm", "ok", "no sbatch", "only launcher=slurm needs it: use a login node of the cluster")
    code, said = ping
    if code == 0 and " is UP" in said:
        return Check("slurm", "ok", f"{sbatch}; {' '.join(said.split())}")
    found = f"{sbatch}, but no controller answers ({' '.join(said.split())[:120]})"
    return Check(
        "slurm", "warning", found, "ask for the cluster's slurm.conf (SLURM_CONF); launcher=local works without"
    )


def slurm_ping() -> tuple[int, str]:
    """Exit code and text of ``scontrol ping``, for at most 10 s."""
    try:
        done = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def declared() -> Iterator[tuple[Requirement, str]]:
    """Each requirement of the installed featscale that applies here, with the extra that asks for it ("": none)."""
    extras = ["", *(metadata.metadata("featscale").get_all("Provides-Extra") or [])]
    for line in metadata.requires("featscale") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        asking = [extra for extra in extras if marker is None or marker.evaluate({"extra": extra})]
        if asking and asking[0] not in EXTRAS_NOT_SHOWN:
            yield requirement, asking[0]


def installed(name: str) -> str | None:
    """The version of the installed distribution `name`, None without one."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_checks() -> Iterator[Check]:
    """featscale itself, Python and every declared package."""
    version = installed("featscale")
    if version is None:
        yield Check("featscale", "problem", "not installed", "pip install -e . in a checkout, or make test")
        return
    yield Check("featscale", "ok", f"{version} in {Path(__file__).parent}")
    yield python_check("{}.{}.{}".format(*sys.version_info), metadata.metadata("featscale")["Requires-Python"] or "")
    for requirement, extra in declared():
        yield requirement_check(requirement, extra, installed(requirement.name))


def probe(code: str = PROBE, timeout: float = 180.0) -> Probe:
    """Import torch, then torchvision, in another Python, for at most `timeout` seconds.

    Cost: the import of both, 3 to 10 s.
    """
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        written = late.stdout or b""
        first = written.decode(errors="replace") if isinstance(written, bytes) else written
        return Probe(torch_report(first), False, f"still not done after {timeout:g} s")
    error = done.stderr if done.returncode >= 0 else f"{done.stderr}\nended by signal {-done.returncode}"
    return Probe(torch_report(done.stdout), done.returncode == 0, error)


def torch_report(written: str) -> Mapping[str, Any] | None:
    """The one JSON line that :data:`PROBE` prints once torch is imported; None if it never came."""
    lines = [line for line in written.splitlines() if line.startswith('{"version"')]
    return json.loads(lines[-1]) if lines else None


def examine(runs: Path = Path("runs")) -> tuple[Check, ...]:
    """Every check of this machine, in the order of the report; writes nothing but one temporary file beside `runs`.

    Cost: that of :func:`probe`.
    """
    environment, home = os.environ, Path(os.path.expanduser("~"))
    checks = [*compromised_checks({name: installed(name) for name in COMPROMISED}), *package_checks()]
    if installed("torch") is not None:
        seen = probe()
        driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
        checks += [import_check(seen), gpu_check(seen, environment, driver)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    checks += [threads_check(cores, environment), *runs_folder_checks(runs), data_check(environment, Path.cwd())]
    sbatch = shutil.which("sbatch")
    return (*checks, wandb_check(environment, home), slurm_check(sbatch, slurm_ping() if sbatch else (1, "")))
