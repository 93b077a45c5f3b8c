"""Workers: what they take, train together, skip, refuse and hand over; and groups, equal to single runs bit for bit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import Source, Stack, Tiny, build, planned

from featscale.errors import BadInput
from featscale.runs.claims import claim
from featscale.runs.directory import RunDirectory
from featscale.runs.manifest import Manifest, Planned, plan
from featscale.runs.record import Record
from featscale.training import worker as module
from featscale.training.orders import Event, Policy
from featscale.training.preemption import Preempted, Preemption
from featscale.training.run import Request, execute
from featscale.training.worker import Worker, without


def work(root: Path, runs: list[Planned], policy: Policy | None = None, **signals: Any) -> list[Event]:
    """Let a worker work on `runs`; returns what it told."""
    told: list[Event] = []
    with signals.get("preemption") or Preemption() as preemption:
        Worker(plan(root, runs), build, preemption, policy, told.append).run()
    return told


def directory(root: Path, run: Planned) -> RunDirectory:
    return Manifest(root / run.config["name"]).directory(run)


def last_words(told: list[Event]) -> dict[str, str]:
    return {event.run.partition("/")[2]: event.status for event in told}


def settled(record: Record) -> dict[str, Any]:
    """A record without its times and the size of its group."""
    entries = json.loads(record.to_json())
    return {
        key: value for key, value in entries.items() if key not in ("wall_seconds", "started", "ended", "group_members")
    }


def lightning(root: Path, run: Planned) -> RunDirectory:
    """The run by Lightning's Trainer."""
    parts = {name: build(run.config[name]) for name in ("model", "parameterization", "optimizer", "loss")}
    target = directory(root, run)
    execute(target, Request(run.config, run.science), data=DataModule(), **parts)
    return target


class DataModule(Source):
    """The same for Lightning, which wants one of its own."""

    def __new__(cls) -> Any:
        from datamodules.stream import Stream

        class Nothing(Stream):
            input_shape, outputs = (1,), 1

            def batch(self, seed: int, step: int) -> Any:
                raise AssertionError("nothing is asked of it")

            def test_set(self) -> Any:
                raise AssertionError("nothing is asked of it")

        return Nothing(1)


SWEEP = [planned(seed=seed, optimizer__eta0=eta0) for seed in range(3) for eta0 in (0.1, 0.2)]


def test_grouped_alone_and_by_lightning_are_the_same_curve_and_record(tmp_path: Path) -> None:
    runs = [*SWEEP, planned(seed=9, model__bursts=60)]
    Stack.calls = 0
    told = work(tmp_path / "grouped", runs)
    assert Stack.calls > 0
    assert sorted(last_words(told).values()) == ["diverged", *["done"] * 6]
    Stack.calls = 0
    work(tmp_path / "alone", runs, Policy(most=1))
    assert Stack.calls == 0
    for run in runs:
        grouped, alone = directory(tmp_path / "grouped", run), directory(tmp_path / "alone", run)
        classic = lightning(tmp_path / "lightning", run)
        assert grouped.read_curve().equals(alone.read_curve())
        assert grouped.read_curve().equals(classic.read_curve())
        records = [each.read_record() for each in (grouped, alone, classic)]
        assert settled(records[0]) == settled(records[1]) == settled(records[2])
        assert [record.extra.get("group_members") for record in records] == [7, None, None]


def test_the_time_of_a_group_is_shared_out(tmp_path: Path) -> None:
    began = time.monotonic()
    work(tmp_path, SWEEP)
    elapsed = time.monotonic() - began
    seconds = [directory(tmp_path, run).read_record().wall_seconds for run in SWEEP]
    assert 0 < sum(seconds) <= elapsed
    assert len({round(each, 6) for each in seconds}) == 1


def test_runs_of_another_shape_are_not_grouped(tmp_path: Path) -> None:
    told = work(tmp_path, [planned(seed=0), planned(seed=1, model__size=4), planned(seed=2)])
    assert set(last_words(told).values()) == {"done"}
    members = [
        directory(tmp_path, run).read_record().extra.get("group_members") for run in Manifest(tmp_path / "tiny").read()
    ]
    assert members == [2, None, 2]


def test_each_of_several_workers_takes_its_part_only(tmp_path: Path) -> None:
    work(tmp_path, SWEEP, Policy(share=3))
    members = [directory(tmp_path, run).read_record().extra.get("group_members") for run in SWEEP]
    assert members == [2, 2, 2, 2, None, None]


def test_one_that_breaks_in_a_group_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [*SWEEP, planned(seed=9, model__breaks=120)]
    told = work(tmp_path, runs)
    assert sorted(last_words(told).values()) == [*["done"] * 6, "failed"]
    assert "each alone" in caplog.text
    record = directory(tmp_path, runs[-1]).read_record()
    assert record.cause is not None
    assert record.cause.startswith("ArithmeticError at step ")
    work(tmp_path / "without", SWEEP)
    for run in SWEEP:
        assert directory(tmp_path, run).read_curve().equals(directory(tmp_path / "without", run).read_curve())


def test_finished_runs_are_left_and_failed_ones_retried_only_when_asked(tmp_path: Path) -> None:
    runs = [planned(seed=0), planned(seed=1, model__breaks=50)]
    work(tmp_path, runs)
    before = [(directory(tmp_path, run).path / "record.json").stat().st_mtime_ns for run in runs]
    assert sorted(last_words(work(tmp_path, runs)).values()) == ["failed", "finished"]
    assert [(directory(tmp_path, run).path / "record.json").stat().st_mtime_ns for run in runs] == before
    told = work(tmp_path, runs, Policy(retry_failed=True))
    assert [event.status for event in told if event.run.endswith(runs[1].hash)][-2:] == ["running", "failed"]
    assert (directory(tmp_path, runs[0]).path / "record.json").stat().st_mtime_ns == before[0]
    assert (directory(tmp_path, runs[1]).path / "record.json").stat().st_mtime_ns > before[1]


def test_a_run_in_other_hands_is_left(tmp_path: Path) -> None:
    runs = [planned(seed=0), planned(seed=1)]
    with claim(directory(tmp_path, runs[0])):
        words = last_words(work(tmp_path, runs))
    assert words == {runs[0].hash: "busy", runs[1].hash: "done"}
    assert last_words(work(tmp_path, runs)) == {runs[0].hash: "done", runs[1].hash: "finished"}


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    runs = [planned(seed=0), planned(seed=1)]
    assert last_words(work(tmp_path, runs, Policy(only=frozenset([runs[1].hash])))) == {runs[1].hash: "done"}


def test_bad_input_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    runs = [planned(seed=0, optimizer__eta0=-1.0), planned(seed=1)]
    told = work(tmp_path, runs)
    assert last_words(told) == {runs[0].hash: "refused", runs[1].hash: "done"}
    assert told[0].cause == "optimizer.eta0: -1.0: a number > 0"
    assert not directory(tmp_path, runs[0]).path.exists()


def test_what_this_place_cannot_do_is_refused_and_no_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that is missing here may be there tomorrow."""
    runs = [planned(seed=0)]

    def refuse(self: Tiny) -> None:
        raise BadInput("trainer.compile", True, "false: no compiler here")

    with monkeypatch.context() as patch:
        patch.setattr(Tiny, "on_fit_start", refuse)
        told = work(tmp_path, runs)
    assert [(event.status, event.cause) for event in told] == [
        ("refused", "trainer.compile: True: false: no compiler here")
    ]
    assert not (directory(tmp_path, runs[0]).path / "record.json").exists()
    assert last_words(work(tmp_path, runs)) == {runs[0].hash: "done"}


@pytest.mark.parametrize("name", ["record.json", "curve.parquet"])
def test_a_file_cut_in_half_is_told_and_mended_when_asked(name: str, tmp_path: Path) -> None:
    runs = [planned(seed=0)]
    work(tmp_path, runs)
    whole = directory(tmp_path, runs[0]).read_curve()
    path = directory(tmp_path, runs[0]).path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = work(tmp_path, runs)
    assert [event.status for event in told] == ["refused"]
    assert str(path) in told[0].cause
    assert last_words(work(tmp_path, runs, Policy(retry_failed=True))) == {runs[0].hash: "done"}
    assert directory(tmp_path, runs[0]).read_curve().equals(whole)


def test_a_run_that_kills_every_process_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CRASHES", 3)
    run = planned(seed=0)
    target = directory(tmp_path, run)
    for _ in range(3):
        if (child := os.fork()) == 0:
            with claim(target):
                os._exit(9)
        os.waitpid(child, 0)
    assert last_words(work(tmp_path, [run])) == {run.hash: "failed"}
    record = target.read_record()
    assert (record.step, record.cause) == (
        0,
        "3 processes in a row died with this run in their hands and saved nothing (out of memory?)",
    )


def test_deaths_with_something_saved_in_between_do_not_count(tmp_path: Path) -> None:
    target = directory(tmp_path, planned(seed=0))
    counts = []
    for saves in (False, True, False):
        if (child := os.fork()) == 0:
            with claim(target) as held:
                if saves:
                    held.progressed()
                os._exit(9)
        os.waitpid(child, 0)
        owner = json.loads((target.path / "lock").read_text())
        counts.append(owner["crashes"])
    assert counts == [0, 0, 1]
    with claim(target) as held:
        assert held.crashes == 2
    with claim(target) as held:
        assert held.crashes == 0


def test_a_worker_stopped_in_a_group_saves_all_and_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Stack.advance

    def signalled(self: Stack, start: int, stop: int) -> None:
        if start <= 60 < stop:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "advance", signalled)
        with pytest.raises(Preempted, match="SIGTERM: saved at step"):
            work(tmp_path / "stopped", SWEEP)
    assert not list(tmp_path.glob("stopped/*/*/record.json"))
    assert len(list(tmp_path.glob("stopped/*/*/checkpoint.pt"))) == len(SWEEP)
    work(tmp_path / "stopped", SWEEP)
    work(tmp_path / "whole", SWEEP)
    for run in SWEEP:
        stopped, whole = directory(tmp_path / "stopped", run), directory(tmp_path / "whole", run)
        assert stopped.read_curve().equals(whole.read_curve())
        assert settled(stopped.read_record()) == settled(whole.read_record())


def test_without_leaves_the_rest_alone() -> None:
    science: Mapping[str, Any] = {"model": {"N": 4, "depth": 2}, "seed": 0, "model.N": 1}
    assert without(science, ("model.N", "data.B")) == {"model": {"depth": 2}, "seed": 0}
    assert science["model"] == {"N": 4, "depth": 2}
