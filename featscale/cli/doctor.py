"""`featscale doctor`: what is installed, what is missing, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from featscale.cli.output import Json, emit

Runs = Annotated[
    Path,
    typer.Option("--runs", envvar="FEATSCALE_RUNS", help="The folder runs are written to; it need not exist yet."),
]
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Look at the installation and the machine: what is there, what is missing, what to do.

    Checks the packages against the declared ranges and the known bad releases, imports torch and torchvision in a
    separate process (a few seconds), and looks at GPUs, cores, disk, data, W&B and the runs folder; no network.
    Each line is ok, a warning (usable) or a problem. Exit code 1 when there is a problem.

    Example: featscale doctor --json
    """
    from featscale.doctor import examine, usable

    with Console(stderr=True).status("importing torch and torchvision in a separate process"):
        checks = examine(runs)
    emit({"ok": usable(checks), "checks": [asdict(check) for check in checks]}, as_json, render)
    if not usable(checks):
        raise typer.Exit(1)


def render(report: Mapping[str, Any]) -> None:
    """Print the report as a table, worst last, and one line that sums it up."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("what", "status", "found", "what to do"):
        table.add_column(column, overflow="fold")
    checks = sorted(report["checks"], key=lambda check: list(STYLES).index(check["status"]))
    for check in checks:
        status = check["status"]
        name, found, advice = (escape(check[key]) for key in ("name", "found", "advice"))
        table.add_row(name, f"[{STYLES[status]}]{status}[/]", found, advice)
    console = Console()
    console.print(table)
    counts = {status: sum(check["status"] == status for check in checks) for status in ("warning", "problem")}
    verdict = "usable" if report["ok"] else "not usable as it is"
    console.print(f"\n{verdict}: {counts['problem']} problem(s), {counts['warning']} warning(s)")
