"""`featscale runs`: what lies in a folder of runs, how far it is, and its curves as one table."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featscale.cli.output import Json, emit, readable
from featscale.errors import BadInput, require

if TYPE_CHECKING:
    import polars

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder of runs, such as runs or runs/NAME; searched at any depth.")
]
LEFT = ("running", "interrupted", "missing")
STATUSES = ("done", "diverged", "failed", "running", "interrupted", "missing", "unreadable")


@app.command("list")
def list_runs(
    folder: Folder,
    name: Annotated[str | None, typer.Option(help="Only runs of this name.")] = None,
    status: Annotated[
        str | None, typer.Option(help=f"Only runs with one of these, comma-separated: {', '.join(STATUSES)}.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One line a run: name, hash, status, steps, loss, seconds, what differs between the runs, and why it ended early.

    With --json each run has every entry of its science configuration under its dotted name (model.N), seconds_left and
    heartbeat_age in seconds, and flops; null where unknown.

    Example: featscale runs list runs --status failed,unreadable
    """
    table = _table(folder)
    if status is not None:
        wanted = status.split(",")
        require(set(wanted) <= set(STATUSES), "status", status, f"some of {', '.join(STATUSES)}, comma-separated")
        table = table.filter(table["status"].is_in(wanted))
    if name is not None:
        table = table.filter(table["name"] == name)
    emit({"runs": table.to_dicts()}, as_json, lambda _: _print_runs(table))


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """How many runs of each name have which status, what runs now and for how long still, and what it all cost.

    seconds_left of a run is a guess from its mean speed since it began or went on; that of all is one from the mean cost of
    the finished runs of the same name, with as many workers as there are runs in training (null: nothing finished yet).
    wall_seconds and flops are the cost so far: of the runs with a record, and the seconds of those without since they began.

    Example: featscale runs status runs
    """
    table = _table(folder)
    names: dict[str, dict[str, int]] = {}
    for name, found, count in table.group_by("name", "status").len().sort("name", "status").iter_rows():
        names.setdefault(name, {})[found] = count
    running = table.filter(table["status"] == "running")
    result = {
        "runs": table.height,
        "names": names,
        "total": {found: count for found in STATUSES if (count := int((table["status"] == found).sum()))},
        "running": running.select("name", "hash", "step", "steps", "seconds_left", "heartbeat_age").to_dicts(),
        "seconds_left": time_left(table),
        "wall_seconds": float(table["wall_seconds"].sum()),
        "flops": float(table["flops"].sum()),
    }
    emit(result, as_json, _print_status)


@app.command()
def collect(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="FILE.parquet or FILE.csv to write.")],
    column: Annotated[
        list[str] | None,
        typer.Option(help="Also write a science entry under a name of your own, NEW=ENTRY; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the curves of all runs that are done or diverged under each other, one row a step and seed.

    Columns: name, hash, every science entry that differs between the runs, then step, t, seed, loss, …. What is left out,
    because it is not finished or its record is unreadable, is counted.

    Example: featscale runs collect runs/width --column N=model.N -o width.parquet; featscale fit frontier width.parquet
    """
    require(output.suffix in (".parquet", ".csv"), "output", output, "a file that ends in .parquet or .csv")
    require(output.absolute().parent.is_dir(), "output", output, "a file in an existing folder")
    columns = dict(_pair(text) for text in column or [])
    table = _table(folder)

    from featscale.runs.files import write_atomically
    from featscale.runs.table import FINISHED, curves

    left_out = dict(table["status"].value_counts().sort("status").iter_rows())
    runs = sum(left_out.pop(found, 0) for found in FINISHED)
    require(runs > 0, "DIR", folder, "a folder with a run that is done or diverged")
    rows = curves(table, columns)
    file = io.BytesIO()
    if output.suffix == ".csv":
        rows.write_csv(file)
    else:
        rows.write_parquet(file)
    write_atomically(output, file.getvalue())
    result = {"file": output, "runs": runs, "rows": rows.height, "columns": rows.columns, "left_out": left_out}
    emit(result, as_json, _print_collected)


@app.command()
def sync(
    folder: Folder,
    everything: Annotated[bool, typer.Option("--all", help="Also runs that were made with logger=none.")] = False,
    as_json: Json = False,
) -> None:
    """Push the finished runs to W&B that it has not got yet; ask as often as you like.

    Runs are mirrored offline (logger.mode=offline) and have the same id there as here, so that nothing is doubled. What W&B
    lost by failing in the middle of a run is made again from the local record. Exit code 1 if something did not arrive.

    Example: wandb login; featscale runs sync runs
    """
    from featscale.runs.sync import sync as push
    from featscale.runs.table import FINISHED

    table = _table(folder)
    finished = table.filter(table["status"].is_in((*FINISHED, "failed")))
    done = push([Path(path) for path in finished["path"]], everything)
    emit({**vars(done), "unfinished": table.height - finished.height}, as_json, _print_synced)
    if done.left:
        raise typer.Exit(1)


def time_left(table: polars.DataFrame) -> float | None:
    """Seconds until all runs in `table` are finished: their steps to go, at the mean seconds a step of the finished runs of their name.

    Runs are shared by as many workers as train now, at least one. Returns: None where runs are left of a name of which none is finished.
    """
    workers = max(1, int((table["status"] == "running").sum()))
    total = 0.0
    for (_,), runs in table.group_by("name"):
        left = runs.filter(runs["status"].is_in(LEFT))
        ended = runs.filter(runs["status"].is_in(("done", "diverged")) & (runs["step"] > 0))
        if left.is_empty():
            continue
        if ended.is_empty() or left["steps"].null_count():
            return None
        speed = float(ended["wall_seconds"].sum()) / int(ended["step"].sum())
        total += speed * (int(left["steps"].sum()) - int(left["step"].fill_null(0).sum()))
    return total / workers


def _table(folder: Path) -> polars.DataFrame:
    from featscale.runs.table import runs_table

    require(folder.is_dir(), "DIR", folder, "an existing folder of runs")
    return runs_table(folder)


def _pair(text: str) -> tuple[str, str]:
    new, equals, entry = text.partition("=")
    if not (new and equals and entry):
        raise BadInput("column", text, "NEW=ENTRY, for example N=model.N")
    return new, entry


def _print_runs(table: polars.DataFrame) -> None:
    from featscale.runs.table import varying_columns

    varying = varying_columns(table)
    lines = [["name", "hash", "status", "step", "loss", "seconds", "what differs", "cause"]]
    for run in table.iter_rows(named=True):
        step = "" if run["step"] is None else f"{run['step']}/{run['steps']}"
        differs = " ".join(f"{entry}={readable(run[entry])}" for entry in varying if run[entry] is not None)
        loss, seconds = ("" if run[key] is None else readable(run[key]) for key in ("loss", "wall_seconds"))
        lines.append([run["name"], run["hash"], run["status"], step, loss, seconds, differs, run["cause"] or ""])
    _print_columns(lines)


def _print_status(result: Mapping[str, Any]) -> None:
    found = [status for status in STATUSES if status in result["total"]]
    lines = [["name", *found, "runs"]]
    for name, counts in {**result["names"], "total": result["total"]}.items():
        lines.append([name, *(str(counts.get(status, 0)) for status in found), str(sum(counts.values()))])
    _print_columns(lines)
    for run in result["running"]:
        left, age = run["seconds_left"], run["heartbeat_age"]
        step = "not begun" if run["step"] is None else f"step {run['step']} of {run['steps']}"
        sys.stdout.write(
            f"running: {run['name']} {run['hash']}: {step}, "
            f"{'time left unknown' if left is None else f'about {duration(left)} left'}"
            f"{'' if age is None else f', last heard of {duration(age)} ago'}\n"
        )
    if any(result["total"].get(found) for found in LEFT):
        left = result["seconds_left"]
        text = "unknown until a run is finished" if left is None else f"about {duration(left)} with the workers of now"
        sys.stdout.write(f"time left: {text}\n")
    sys.stdout.write(f"in all {duration(result['wall_seconds'])} of training, {result['flops']:.3g} FLOPs\n")


def _print_collected(result: Mapping[str, Any]) -> None:
    left_out = ", ".join(f"{count} {found}" for found, count in result["left_out"].items())
    sys.stdout.write(f"{result['file']}: {result['rows']} rows of {result['runs']} runs\n")
    sys.stdout.write(f"columns: {', '.join(result['columns'])}\n")
    if left_out:
        sys.stdout.write(f"left out: {left_out}\n")


def _print_synced(result: Mapping[str, Any]) -> None:
    words = {
        "pushed": "pushed",
        "already": "there already",
        "unmirrored": "made with logger=none (--all takes them too)",
        "rebuilt": "of them made again from their record",
    }
    for key, text in words.items():
        sys.stdout.write(f"{len(result[key])} {text}\n" if result[key] or key == "pushed" else "")
    if result["unfinished"]:
        sys.stdout.write(f"{result['unfinished']} not finished: left for another time\n")
    if result["left"]:
        sys.stderr.write(f"error: {len(result['left'])} did not arrive: {result['reason']}\n")


def _print_columns(lines: list[list[str]]) -> None:
    """Aligned columns, never folded: for 10,000 runs this is fast, and `grep` finds whole lines."""
    texts = [[" ".join(cell.split()) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for line in texts:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def duration(seconds: float) -> str:
    """A length of time for a person.

    >>> [duration(s) for s in (0.5, 90, 7300, 200000)]
    ['0.5 s', '1 min 30 s', '2 h 01 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {s} s"
