"""The W&B mirror: what must be in the offline file is there, and no failure of W&B is a failure of the run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from featscale.errors import BadInput
from featscale.runs.mirror import SETTINGS, Mirror, Mode

ROWS = [
    {"step": 0, "t": 0.0, "seed": 3, "loss": 1.0, "K": 1.0},
    {"step": 0, "t": 0.0, "seed": 4, "loss": 3.0, "K": 1.0},
    {"step": 10, "t": 5.0, "seed": 3, "loss": 0.5, "K": 2.0},
    {"step": 10, "t": 5.0, "seed": 4, "loss": 0.25, "K": 4.0},
    {"step": 100, "t": 50.0, "seed": 3, "loss": 0.125, "K": 8.0},
]
LOGGED = [
    {"step": 0, "t": 0.0, "loss": 2.0, "K": 1.0, "seeds": 2, "loss/seed_3": 1.0, "loss/seed_4": 3.0},
    {"step": 10, "t": 5.0, "loss": 0.375, "K": 3.0, "seeds": 2, "loss/seed_3": 0.5, "loss/seed_4": 0.25},
    {"step": 100, "t": 50.0, "loss": 0.125, "K": 8.0, "seeds": 1, "loss/seed_3": 0.125},
]


class FakeRun:
    """A W&B run that remembers what it is told; `broken` names the method that fails."""

    def __init__(self, broken: str, summary: dict[str, Any]) -> None:
        self.broken, self.summary_values = broken, summary
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[Any] = []
        self.exit_codes: list[int] = []
        self.resumed = bool(summary)

    def fail(self, name: str) -> None:
        if name in self.broken.split(","):
            raise ConnectionError(f"{name}\nis broken")

    @property
    def summary(self) -> dict[str, Any]:
        self.fail("summary")
        return self.summary_values

    def define_metric(self, *arguments: Any, **options: Any) -> None:
        self.fail("define_metric")
        self.metrics.append((arguments, options))

    def log(self, row: dict[str, Any]) -> None:
        self.logged.append(row)
        if len(self.logged) == 2:
            self.fail("log")

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)
        self.fail("finish")


class FakeWandb(types.ModuleType):
    """As much of wandb as the mirror uses."""

    def __init__(self, broken: str = "", key: bool = True, summary: dict[str, Any] | None = None) -> None:
        super().__init__("wandb")
        self.run, self.key = FakeRun(broken, summary or {}), key
        self.started: list[dict[str, Any]] = []

    def login(self, prompt: bool, verify: bool) -> bool:
        assert not prompt
        assert not verify
        return self.key

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **arguments: Any) -> FakeRun:
        self.started.append(arguments)
        self.run.fail("init")
        return self.run


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No W&B settings of the machine's, and none left behind."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")


def mirror_of(folder: Path, mode: Mode = "offline") -> Mirror:
    return Mirror(
        mode=mode,
        project="p",
        group="width",
        job_type="train",
        run_id="0123456789ab",
        directory=folder,
        config={"model": {"N": 64}},
    )


def fake(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakeWandb:
    wandb = FakeWandb(**options)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return wandb


# The real thing

SCRIPT = """
    import json, sys
    from pathlib import Path
    from test_mirror import ROWS, mirror_of

    with mirror_of(Path(sys.argv[1])) as mirror:
        mirror.log(ROWS[:2])
        mirror.log(ROWS)
        mirror.summary({"status": "failed", "loss": 0.125})
    print(json.dumps(mirror.problem))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path, str, str]:
    """Records of the .wandb file of one real offline run, its folder, and what the process printed on stdout and stderr."""
    folder = tmp_path_factory.mktemp("mirror")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment = {**clean, "HOME": str(folder / "home"), "PYTHONPATH": str(Path(__file__).parent)}
    (folder / "home").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120, check=True)
    (file,) = folder.glob("wandb/offline-run-*/run-0123456789ab.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    text = subprocess.run(inspect, capture_output=True, text=True, env=environment, timeout=120, check=True).stdout
    return [json.loads(line) for line in text.splitlines()], folder, done.stdout, done.stderr


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def test_the_offline_file_names_the_run(offline: tuple[list[dict[str, Any]], Path, str, str]) -> None:
    (run,) = of_kind(offline[0], "run")
    names = {key: run[key] for key in ("run_id", "display_name", "project", "run_group", "job_type")}
    assert names == {
        "run_id": "0123456789ab",
        "display_name": "0123456789ab",
        "project": "p",
        "run_group": "width",
        "job_type": "train",
    }
    assert run["config"]["update"]["model"] == {"N": 64}


def test_the_offline_file_holds_every_row_once_on_our_step(
    offline: tuple[list[dict[str, Any]], Path, str, str],
) -> None:
    rows = [record["item"] for record in of_kind(offline[0], "history")]
    assert [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows] == LOGGED
    assert {"glob_name": "*", "step_metric": "step"}.items() <= of_kind(offline[0], "metric")[-1].items()


def test_the_offline_file_holds_summary_and_exit_code(offline: tuple[list[dict[str, Any]], Path, str, str]) -> None:
    summary: dict[str, Any] = {}
    for record in of_kind(offline[0], "summary"):
        summary |= record["update"]
    assert (summary["status"], summary["loss"]) == ("failed", 0.125)
    # A slow run adds its length in seconds.
    assert [end["exit_code"] for end in of_kind(offline[0], "exit")] == [1]


def test_a_mirrored_process_is_quiet_and_light(offline: tuple[list[dict[str, Any]], Path, str, str]) -> None:
    records, folder, stdout, stderr = offline
    assert (stdout, stderr) == ("null\n", "")
    assert of_kind(records, "output_raw") == of_kind(records, "stats") == of_kind(records, "environment") == []
    assert [path.name for path in folder.glob("wandb/*/files/*")] == []
    assert [path.name for path in (folder / "wandb").iterdir() if path.is_symlink()] == []


# Whatever goes wrong


def test_nothing_wrong_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = fake(monkeypatch)
    with mirror_of(tmp_path) as mirror:
        mirror.log(pl.DataFrame(ROWS))
        mirror.log([])
        mirror.summary({"status": "done"})
    assert mirror.problem is None
    assert caplog.messages == []
    assert wandb.run.logged == LOGGED
    assert wandb.run.exit_codes == [0]
    (arguments,) = wandb.started
    assert arguments["settings"] == SETTINGS
    assert (arguments["mode"], arguments["id"], arguments["resume"]) == ("offline", "0123456789ab", None)
    assert arguments["dir"] == str(tmp_path)


@pytest.mark.parametrize("broken", ["init", "define_metric", "log", "summary", "finish", "log,finish"])
def test_a_failure_costs_one_warning_and_the_run_goes_on(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wandb = fake(monkeypatch, broken=broken)
    went_on = False
    with caplog.at_level(logging.WARNING), mirror_of(tmp_path) as mirror:
        mirror.log(ROWS)
        mirror.summary({"status": "done"})
        mirror.log(ROWS)
        went_on = True
    assert went_on
    assert len(caplog.messages) == 1
    assert "\n" not in caplog.messages[0]
    first = broken.split(",")[0]
    stage = "init" if first == "define_metric" else first
    assert mirror.problem is not None
    assert mirror.problem.startswith(f"{stage}: ConnectionError: {first} is broken")
    assert ("on closing it" in mirror.problem) == (broken == "log,finish")
    # Closed once all the same, or the next run of this process would become part of it.
    assert len(wandb.run.exit_codes) == (0 if broken == "init" else 1)


def test_without_wandb_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with mirror_of(tmp_path) as mirror:
        mirror.log(ROWS)
    assert mirror.problem is not None
    assert "ModuleNotFoundError" in mirror.problem
    assert len(caplog.messages) == 1


def test_a_folder_that_cannot_be_made_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake(monkeypatch)
    (tmp_path / "wandb").write_text("a file")
    with mirror_of(tmp_path) as mirror:
        mirror.log(ROWS)
    assert mirror.problem is not None
    assert "FileExistsError" in mirror.problem
    assert wandb.started == []


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake(monkeypatch)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with mirror_of(tmp_path) as mirror:
        mirror.log(ROWS)
    assert mirror.problem is not None
    assert "PermissionError" in mirror.problem
    assert wandb.started == []


@pytest.mark.parametrize(
    ("status", "error", "exit_code"),
    [
        ("done", None, 0),
        ("diverged", None, 0),
        ("failed", None, 1),
        (None, None, 0),
        ("done", ValueError, 1),
        ("done", KeyboardInterrupt, 1),
    ],
)
def test_the_exit_code_follows_the_run(
    status: str | None,
    error: type[BaseException] | None,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wandb = fake(monkeypatch)

    def body() -> None:
        with mirror_of(tmp_path) as mirror:
            if status:
                mirror.summary({"status": status})
            if error:
                raise error

    if error:
        with pytest.raises(error):
            body()
    else:
        body()
    assert wandb.run.exit_codes == [exit_code]


# Modes


def test_disabled_does_not_touch_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with mirror_of(tmp_path, "disabled") as mirror:
        mirror.log(ROWS)
        mirror.summary({"status": "done"})
    assert mirror.problem is None
    assert list(tmp_path.iterdir()) == []


def test_the_environment_wins_over_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake(monkeypatch)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with mirror_of(tmp_path, "online"):
        pass
    assert wandb.started == []
    monkeypatch.setenv("WANDB_MODE", "online")
    with mirror_of(tmp_path, "offline"):
        pass
    assert wandb.started[0]["mode"] == "online"
    monkeypatch.setenv("WANDB_MODE", "")
    with mirror_of(tmp_path, "offline"):
        pass
    assert wandb.started[1]["mode"] == "offline"


@pytest.mark.parametrize("variable", [None, "onlien"])
def test_an_unknown_mode_is_bad_input(variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    with pytest.raises(BadInput, match=r"^logger\.mode: onlien: one of offline, online, shared, disabled"):
        mirror_of(tmp_path, "offline" if variable else "onlien")  # type: ignore[arg-type]


def test_online_without_a_key_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake(monkeypatch, key=False)
    with mirror_of(tmp_path, "online") as mirror:
        mirror.log(ROWS)
    assert mirror.problem is not None
    assert "no key is stored" in mirror.problem
    assert wandb.started == []


def test_a_run_resumed_online_logs_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = fake(monkeypatch, summary={"step": 10})
    with mirror_of(tmp_path, "online") as mirror:
        mirror.log(ROWS)
    assert wandb.started[0]["resume"] == "allow"
    assert wandb.run.logged == LOGGED[2:]
