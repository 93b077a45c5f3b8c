"""`featscale figure mnist_cnn`, `cifar5m_cnn` and `circle_modes`: image runs lazy beside rich, and modes learned when."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table

from featscale.cli.output import emit
from featscale.errors import require

if TYPE_CHECKING:
    from featscale.figures.images import Images


def show_images(name: str, runs: Path, output: Path, as_json: bool) -> None:
    """Print the exponents of an image experiment's runs and write its figure."""
    from featscale.figures import images
    from featscale.figures.demo import load

    found = images.data(load(runs / name))
    images.save(found, output, name)
    lines = [
        {
            "gamma": curve.gamma,
            "seeds": len(curve.fit.seeds),
            "loss": float(curve.loss[-1]),
            "accuracy": curve.accuracy,
            "exponent": curve.fit.exponent,
            "interval": curve.fit.interval,
            "window": curve.fit.window,
            "flags": curve.fit.flags,
        }
        for curve in found.curves
    ]
    gain = None if found.gain is None else vars(found.gain)
    emit({"figure": output, "exponents": lines, "gain": gain}, as_json, lambda _: _table(found, output))


def show_modes(name: str, runs: Path, output: Path, as_json: bool) -> None:
    """Print k*(t) of the circle's runs with octaves, at log-spaced times, and write one figure a richness."""
    from featscale.figures import modes
    from featscale.figures.demo import load

    done = load(runs / name)
    require(bool(done), "runs", "none finished", f"the runs of python train.py -m experiment={name}")
    richness = sorted({run.gamma for run in done})
    files: list[Path] = []
    found: list[dict[str, Any]] = []
    for gamma in richness:
        curve = pl.concat([run.curve for run in done if run.gamma == gamma], how="diagonal")
        files.append(output.with_stem(f"{output.stem}_gamma{gamma:g}"))
        modes.save(curve, files[-1], f"circle, γ = {gamma:g}")
        k = modes.k_star(curve).group_by("t", maintain_order=True).agg(pl.col("k_star").mean())
        found.append({"gamma": gamma, "t": k["t"].to_list(), "k_star": k["k_star"].to_list()})
    emit({"figures": files, "k_star": found}, as_json, lambda _: _modes_table(found, files))


def _table(found: Images, output: Path) -> None:
    table = Table("γ", "seeds", "last loss", "accuracy", "exponent", "95 % interval", "window in t")
    for curve in found.curves:
        fit = curve.fit
        low, high = fit.interval
        cells = (f"{curve.gamma:g}", f"{len(fit.seeds)}", f"{curve.loss[-1]:.4g}", f"{curve.accuracy:.3f}")
        table.add_row(*cells, f"{fit.exponent:.3f}", f"[{low:.3f}, {high:.3f}]", "{:.3g} to {:.3g}".format(*fit.window))
    console = Console(width=None if sys.stdout.isatty() else 110, soft_wrap=True)
    console.print(table)
    if found.gain is not None:
        low, high = found.gain.interval
        text = "rich minus lazy (γ = {1:g} − γ = {0:g}): ".format(*found.gain.gammas)
        console.print(f"{text}{found.gain.difference:.3f} [{low:.3f}, {high:.3f}], paired by seed", markup=False)
    for curve in found.curves:
        for flag in curve.fit.flags:
            console.print(f"γ = {curve.gamma:g}: {flag}", markup=False)
    console.print(f"figure: {output}", markup=False)


def _modes_table(found: list[dict[str, Any]], files: list[Path]) -> None:
    table = Table("γ", "t", "k*")
    for one in found:
        for t, k in list(zip(one["t"], one["k_star"], strict=True))[:: max(1, len(one["t"]) // 8)]:
            table.add_row(f"{one['gamma']:g}", f"{t:.3g}", f"{k:.3g}")
    console = Console(width=None if sys.stdout.isatty() else 110, soft_wrap=True)
    console.print(table)
    for file in files:
        console.print(f"figure: {file}", markup=False)
