"""Who may import whom, read from the source with `ast`, and what starting the command may load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

NUMERIC = "scipy torch jaxtyping"
# Part: (what of ours it may import besides itself and featscale.errors, what of others besides numpy and the standard
# library). "*": everything. The rules of ONLY hold on top.
TABLE = {
    "featscale": ("", ""),
    "featscale.errors": ("", ""),
    "featscale.doctor": ("", "packaging"),
    "featscale.spectra": ("", NUMERIC),
    "featscale.numerics": ("", NUMERIC),
    "featscale.theory": ("featscale.spectra featscale.numerics", NUMERIC),
    "featscale.simulate": ("featscale.spectra featscale.numerics", NUMERIC),
    "featscale.parameterization": ("", "torch"),
    "featscale.models": ("featscale.parameterization", "torch"),
    "featscale.training": (
        "featscale.models featscale.parameterization featscale.simulate featscale.numerics featscale.runs",
        "torch lightning polars rich threadpoolctl numba scipy",
    ),
    "featscale.diagnostics": (
        "featscale.models featscale.parameterization featscale.simulate featscale.runs.record",
        "torch lightning scipy",
    ),
    "featscale.runs": ("", "polars wandb yaml"),
    "featscale.fits": ("featscale.numerics", "scipy polars"),
    "featscale.figures": (
        "featscale.spectra featscale.theory featscale.fits featscale.runs featscale.diagnostics",
        "matplotlib plotly polars scipy",
    ),
    "featscale.report": (
        "featscale.spectra featscale.theory featscale.fits featscale.runs featscale.diagnostics featscale.figures",
        "matplotlib plotly polars wandb_workspaces",
    ),
    "featscale.cli": ("*", "*"),
    "datamodules": ("featscale.spectra", "torch lightning torchvision"),
    "train": ("*", "*"),
}
# Where alone a framework may be imported: files, or folders with a closing slash.
ONLY = {
    "wandb": ("featscale/runs/mirror.py",),
    "hydra": ("train.py", "featscale/cli/"),
    "lightning": ("featscale/training/", "datamodules/"),
    "ray": ("featscale/cli/engines/ray.py",),
    "pytorch_lightning": (),
    "torchvision": ("datamodules/",),
    "datamodules": ("datamodules/", "train.py"),
}
HEAVY = {"torch", "lightning", "pytorch_lightning", "torchvision", "wandb"}


def source_files(root: Path) -> list[Path]:
    """The files the table speaks of: train.py and every module of the two packages."""
    packages = [path for package in ("featscale", "datamodules") for path in sorted((root / package).rglob("*.py"))]
    return [path for path in [root / "train.py", *packages] if path.is_file()]


def is_module(root: Path, name: str) -> bool:
    """Whether the dotted `name` is one of our modules or packages."""
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(root: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import at any depth; relative ones with their leading dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                name = f"{module}.{alias.name}"
                yield node.lineno, name if node.level == 0 and is_module(root, name) else module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from ((node.lineno, str(arg.value)) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def within(name: str, prefixes: str) -> bool:
    """Whether the dotted `name` is one of the space-separated `prefixes` or lies inside one."""
    return any(prefix == "*" or f"{name}.".startswith(f"{prefix}.") for prefix in prefixes.split())


def part_of(name: str) -> str:
    """The row of the table that the dotted `name` belongs to."""
    return ".".join(name.split(".")[: 2 if name.startswith("featscale") else 1])


def objection(file: str, importer: str, target: str) -> str | None:
    """Why the module `importer` in `file` may not import `target`; None if it may."""
    if target.startswith("."):
        return "a relative import"
    top, part = target.split(".")[0], part_of(importer)
    if top in ONLY and not any(file == place or (place[-1] == "/" and file.startswith(place)) for place in ONLY[top]):
        return f"only in {', '.join(ONLY[top]) or 'no file'}"
    if part not in TABLE:
        return f"{part} is not in the table"
    ours, others = TABLE[part]
    if top in ("featscale", "datamodules"):
        allowed = part != "featscale" and within(target, part)
        return (
            None if allowed or within(target, f"featscale.errors {ours}") else f"{part} may import {ours or 'nothing'}"
        )
    if top in sys.stdlib_module_names or within(top, f"numpy {others}"):
        return None
    return f"{part} may import of others: numpy {others}".rstrip()


def violations(root: Path) -> list[str]:
    """Every import under `root` that the table forbids, as ``file:line imports name: why``."""
    found = []
    for path in source_files(root):
        file = path.relative_to(root).as_posix()
        importer = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for line, target in sorted(set(imported(root, ast.parse(path.read_text("utf-8"), file)))):
            if why := objection(file, importer, target):
                found.append(f"{file}:{line} imports {target}: {why}")
    return found


def test_imports_follow_the_table() -> None:
    assert len(source_files(ROOT)) > 10
    assert violations(ROOT) == []


def planted(root: Path, files: dict[str, str]) -> list[str]:
    """``file:line name`` of each violation in a made-up tree of `files`."""
    for file, source in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return [violation.split(": ")[0].replace(" imports", "") for violation in violations(root)]


ALLOWED_TREE = {
    "train.py": "import hydra\nfrom featscale.training.module import x\nimport featscale.cli",
    "datamodules/mnist.py": "import torchvision\nfrom lightning import x\nfrom featscale.spectra import y\n",
    "featscale/__init__.py": "import sys",
    "featscale/errors.py": "",
    "featscale/spectra.py": "from featscale.errors import require\nfrom scipy.special import zeta",
    "featscale/theory/flow.py": "from featscale.theory import exponents\nfrom featscale import spectra\nimport numpy",
    "featscale/theory/exponents.py": "import math, json",
    "featscale/runs/record.py": "import polars as pl",
    "featscale/runs/mirror.py": "def f():\n    import wandb",
    "featscale/training/module.py": "from featscale.runs.record import x\nfrom featscale.runs import record",
    "featscale/training/projected_linear.py": "import lightning.pytorch",
    "featscale/cli/fit.py": "def f():\n    from featscale.runs import record\n    import typer, hydra",
}


def test_what_the_table_allows_is_not_reported(tmp_path: Path) -> None:
    assert planted(tmp_path, ALLOWED_TREE) == []


@pytest.mark.parametrize(
    ("file", "source", "reported"),
    [
        ("featscale/theory/x.py", "from .flow import y", "1 .flow"),
        ("featscale/theory/x.py", "from . import flow", "1 ."),
        ("featscale/theory/x.py", "import featscale.runs.record", "1 featscale.runs.record"),
        ("featscale/theory/x.py", "def f():\n    from featscale import runs", "2 featscale.runs"),
        ("featscale/theory/x.py", "def f():\n    import lightning.pytorch as pl", "2 lightning.pytorch"),
        ("featscale/theory/x.py", "import pandas", "1 pandas"),
        ("featscale/theory/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import typer", "3 typer"),
        ("featscale/spectra.py", "import featscale.theory", "1 featscale.theory"),
        ("featscale/spectra_more.py", "from featscale.spectra import x", "1 featscale.spectra"),
        ("featscale/runs/collect.py", "import wandb", "1 wandb"),
        ("featscale/runs/collect.py", "import importlib\nimportlib.import_module('wandb.sdk')", "2 wandb.sdk"),
        ("featscale/training/x.py", "from featscale.fits import something", "1 featscale.fits"),
        ("featscale/training/x.py", "import featscale.theory.flow", "1 featscale.theory.flow"),
        ("featscale/training/x.py", "from hydra.utils import instantiate", "1 hydra.utils"),
        ("featscale/training/x.py", "import torchvision.ops", "1 torchvision.ops"),
        ("featscale/cli/x.py", "def f():\n    import datamodules.mnist", "2 datamodules.mnist"),
        ("featscale/cli/x.py", "import wandb", "1 wandb"),
        ("featscale/cli/x.py", "import pytorch_lightning", "1 pytorch_lightning"),
        ("featscale/__init__.py", "from featscale.theory import exponents", "1 featscale.theory.exponents"),
        ("datamodules/x.py", "from featscale.runs import record", "1 featscale.runs.record"),
        ("train.py", "import lightning", "1 lightning"),
    ],
)
def test_what_the_table_forbids_is_reported(file: str, source: str, reported: str, tmp_path: Path) -> None:
    assert planted(tmp_path, {**ALLOWED_TREE, file: source}) == [f"{file}:{reported}"]


def heavy_after(code: str) -> set[str]:
    """The heavy packages a fresh Python has loaded after running `code`."""
    report = "\nimport json, sys; sys.stderr.write('\\nLOADED ' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(json.loads(done.stderr.rsplit("LOADED ", 1)[1]))


def command(*arguments: str) -> str:
    """Code that runs the installed `featscale` command with `arguments` and insists that it succeeds."""
    return textwrap.dedent(f"""
        import sys
        from importlib.metadata import entry_points
        (script,) = entry_points(group="console_scripts", name="featscale")
        sys.argv = ["featscale", *{arguments!r}]
        try:
            code = script.load()()
        except SystemExit as end:
            code = end.code
        assert not code, code
    """)


@pytest.mark.parametrize("arguments", [(), ("theory",), ("fit",), ("runs",), ("simulate",), ("doctor",)])
def test_help_starts_without_the_training_stack(arguments: tuple[str, ...]) -> None:
    assert heavy_after(command(*arguments, "--help")) == set()


@pytest.mark.parametrize("module", ["cli.app", "doctor", "fits", "runs", "theory"])
def test_a_light_package_imports_without_the_training_stack(module: str) -> None:
    assert heavy_after(f"import featscale.{module}") == set()


def test_the_exponents_need_no_training_stack() -> None:
    assert heavy_after(command("theory", "exponents", "--alpha", "1.5", "--beta", "0.5", "--json")) == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert heavy_after("import sys, types; sys.modules['wandb'] = types.ModuleType('wandb')") == {"wandb"}
