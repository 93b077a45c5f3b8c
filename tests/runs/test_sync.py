"""Pushing to W&B later: everything arrives once, whatever failed before or fails meanwhile."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_mirror import FakeWandb
from wandb_server import Server as RealServer

from featscale.errors import BadInput
from featscale.runs import sync as module
from featscale.runs.claims import claim
from featscale.runs.directory import RunDirectory
from featscale.runs.identity import config_hash, run_path
from featscale.runs.mirror import Mirror
from featscale.runs.record import Record
from featscale.runs.sync import Synced, marker, offline_file, sync

CURVE = pl.DataFrame({"step": [0, 1, 2], "t": [0.0, 0.5, 1.0], "seed": [0] * 3, "loss": [1.0, 0.5, 0.25]})


class Offline(FakeWandb):
    """A wandb that leaves an offline file with one line a logged row; the call named by `broken` fails in the middle."""

    count = 0

    def init(self, **arguments: Any) -> Any:
        Offline.count += 1
        self.__init__(self.run.broken)  # type: ignore[misc]
        run = super().init(**arguments)
        folder = Path(arguments["dir"]) / "wandb" / f"offline-run-20250101_{Offline.count:06d}-{arguments['id']}"
        folder.mkdir(parents=True)
        file, log = folder / f"run-{arguments['id']}.wandb", run.log

        def logged(row: dict[str, Any]) -> None:
            log(row)
            with file.open("a") as out:
                out.write(f"{row['step']} {row['loss']}\n")

        file.touch()
        run.log = logged
        return run


class Server:
    """W&B's side: what it has got, and how many files it takes before the line is cut."""

    def __init__(self, takes: int = 1000) -> None:
        self.takes, self.got, self.calls = takes, [], 0

    def push(self, files: Any) -> str:
        self.calls += 1
        for file in files:
            if self.takes == 0:
                return "connection lost"
            self.takes -= 1
            self.got.append((file.name, file.read_text()))
            marker(file).touch()
        return "done"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offline wandb, no settings of the machine's."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", Offline())


def add(root: Path, N: int, mode: str = "offline", problem: str | None = None, mirrored: bool = True) -> Path:
    """A finished run, mirrored as a run is; with a `problem`, only its first row got into the file."""
    science = {"model": {"N": N}}
    config = science | {"logger": {"mode": mode, "project": "p", "job_type": "train"}}
    directory = RunDirectory(run_path(root, "width", config_hash(science)))
    with claim(directory):
        directory.write_config(config, science)
        directory.write_curve(CURVE)
        mirror = Mirror(mode, "p", "width", "train", directory.path.name, directory.path, config)  # type: ignore[arg-type]
        if mirrored:
            with mirror:
                mirror.log(CURVE.head(1) if problem else CURVE)
        directory.write_record(
            Record(
                status="done",
                name="width",
                hash=directory.path.name,
                science=science,
                seeds=(0,),
                step=2,
                steps=2,
                wall_seconds=1.0,
                started="2025-01-01T00:00:00+00:00",
                ended="2025-01-01T00:00:01+00:00",
                metrics={"loss": 0.25},
                mirror_problem=problem,
            )
        )
    return directory.path


WHOLE = "0 1.0\n1 0.5\n2 0.25\n"


def test_every_run_arrives_once_under_its_hash(tmp_path: Path) -> None:
    paths, server = [add(tmp_path, N) for N in (1, 2, 3)], Server()
    assert sync(paths, push=server.push) == Synced(pushed=paths, reason="done")
    assert sorted(server.got) == sorted((f"run-{path.name}.wandb", WHOLE) for path in paths)
    assert sync(paths, push=server.push) == Synced(already=paths)
    assert server.calls == 1


def test_a_line_cut_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    paths, cut, server = [add(tmp_path, N) for N in range(5)], Server(takes=2), Server()
    first = sync(paths, push=cut.push)
    assert (len(first.pushed), len(first.left), first.reason) == (2, 3, "connection lost")
    second = sync(paths, push=server.push)
    assert (second.already, second.pushed, second.left) == (first.pushed, first.left, [])
    assert len({name for name, _ in cut.got + server.got}) == len(cut.got + server.got) == 5


@pytest.mark.parametrize("broken", ["log", "init", "finish"])
def test_what_failed_in_the_middle_of_a_run_is_made_again_from_the_record(broken: str, tmp_path: Path) -> None:
    sys.modules["wandb"] = Offline(broken)
    path = add(tmp_path, 1, problem=f"{broken}: ConnectionError")
    sys.modules["wandb"] = Offline()
    server = Server()
    assert sync([path], push=server.push) == Synced(pushed=[path], rebuilt=[path], reason="done")
    assert server.got == [(f"run-{path.name}.wandb", WHOLE)]
    assert sync([path], push=server.push) == Synced(already=[path])


def test_a_rebuilt_file_that_did_not_arrive_is_not_built_once_more(tmp_path: Path) -> None:
    path = add(tmp_path, 1, problem="log: ConnectionError")
    assert sync([path], push=Server(takes=0).push) == Synced(rebuilt=[path], left=[path], reason="connection lost")
    count = len(list(path.glob("wandb/offline-run-*")))
    assert sync([path], push=Server().push) == Synced(pushed=[path], reason="done")
    assert len(list(path.glob("wandb/offline-run-*"))) == count


def test_only_the_last_attempt_is_sent(tmp_path: Path) -> None:
    path = add(tmp_path, 1)
    early = path / "wandb" / f"offline-run-20240101_000000-{path.name}"
    early.mkdir()
    (early / f"run-{path.name}.wandb").write_text("0 1.0\n")
    server = Server()
    sync([path], push=server.push)
    assert server.got == [(f"run-{path.name}.wandb", WHOLE)]
    assert early.name not in str(offline_file(path))


def test_runs_without_a_logger_are_sent_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, server = add(tmp_path, 1, "disabled", mirrored=False), Server()
    assert sync([path], push=server.push) == Synced(unmirrored=[path])
    # The environment of the sync says nothing about runs that are long done.
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert sync([path], everything=True, push=server.push).pushed == [path]
    assert server.got == [(f"run-{path.name}.wandb", WHOLE)]


def test_a_run_mirrored_online_is_there_already(tmp_path: Path) -> None:
    path = add(tmp_path, 1, "online", mirrored=False)
    (path / "wandb" / f"run-20250101_000000-{path.name}").mkdir(parents=True)
    assert sync([path], push=Server().push) == Synced(already=[path])


def test_a_mirror_that_cannot_be_rebuilt_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = add(tmp_path, 1, mirrored=False)
    sys.modules["wandb"] = Offline("log")
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(BadInput, match=r"^logger: .*a run that W&B can mirror \(log"),
    ):
        sync([path], push=Server().push)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = add(tmp_path, 1)
    (path / "config.yaml").write_text("logger: [")
    with pytest.raises(BadInput, match=r"^config: .*config\.yaml"):
        sync([path], push=Server().push)


def test_without_a_key_nothing_is_marked_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real `wandb sync`, on a machine without a key and pointed at nobody."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    path = add(tmp_path, 1)
    result = sync([path])
    assert result.left == [path]
    assert result.reason
    assert json.dumps(result.reason).isprintable()
    assert module.offline_file(path)


@pytest.mark.slow
def test_the_real_wandb_sync_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real mirrors, the real `wandb sync`, and a server that refuses one run's rows the first time."""
    monkeypatch.delitem(sys.modules, "wandb")
    server = RealServer()
    try:
        for name, value in {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        paths = [add(tmp_path / "runs", 1), add(tmp_path / "runs", 2), add(tmp_path / "runs", 3, problem="log: cut")]
        server.broken = {paths[1].name}
        first = sync(paths)
        assert (first.pushed, first.left, first.rebuilt) == ([paths[0], paths[2]], [paths[1]], [paths[2]])
        server.broken = set()
        assert sync(paths).pushed == [paths[1]]
        assert server.groups == {path.name: ("width", "train") for path in paths}
        assert [server.losses(path.name) for path in paths] == [CURVE["loss"].to_list()] * 3
        before = server.requests
        assert sync(paths).already == paths
        assert server.requests == before
    finally:
        server.shutdown()
        server.server_close()
