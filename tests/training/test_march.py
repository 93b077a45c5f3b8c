"""The way of modules through the steps: where they stop, what they measure, and that pauses change nothing."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import Tiny, job_of, planned

from featscale.training import march as module
from featscale.training.group import ready
from featscale.training.march import March, OneByOne


@pytest.fixture
def make(tmp_path: Path) -> Any:
    with ExitStack() as claims:

        def one(**changes: Any) -> Tiny:
            job = job_of(tmp_path, planned(**changes), claims)
            ready(job)
            jobs.append(job)
            return job.module

        jobs: list[Any] = []
        yield one


def test_rows_are_where_they_are_due_however_it_is_cut(make: Any) -> None:
    plain, cut = make(), make(model__breaks=10**6)
    assert March([plain], 100).to(200) is False
    visited = []

    def pause() -> bool:
        visited.append(cut.step)
        return False

    way = March([cut], 7, pause)
    for stop in (3, 50, 51, 200):
        assert way.to(stop) is (stop < 200)
        assert cut.step == stop
    assert max(b - a for a, b in itertools.pairwise(visited)) <= 7
    assert cut.rows == plain.rows
    assert [row["step"] for row in plain.rows] == plain.log_steps.tolist()


def test_a_pause_stops_it_at_a_step_inside_a_chunk(make: Any) -> None:
    whole, cut = make(), make(model__breaks=10**6)
    March([whole], 200).to(200)
    asked = iter([False] * 9 + [True])
    assert March([cut], 100, lambda: next(asked, False)).to(200) is False
    assert 0 < cut.step < 100
    assert March([cut], 100).to(200) is False
    assert cut.rows == whole.rows


@pytest.mark.parametrize(("seconds", "longest"), [(0.002, 32), (0.0, 400), (10.0, 1)])
def test_slow_steps_are_taken_few_at_a_time(
    seconds: float, longest: int, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of its own; rows are due every 100 steps at most, far from which a range grows."""
    clock = [0.0]
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slow = make(steps=2000)
    advance, pauses = slow.advance, []

    def dawdle(start: int, stop: int) -> None:
        clock[0] += seconds * (stop - start)
        advance(start, stop)

    monkeypatch.setattr(slow, "advance", dawdle)
    slow.log_steps = np.array([0, 2000])
    March([slow], 400, lambda: bool(pauses.append(slow.step))).to(2000)
    assert max(b - a for a, b in itertools.pairwise(pauses)) == longest


def test_members_that_are_over_drop_out(make: Any) -> None:
    burst, sound = make(seed=1, model__bursts=60), make(seed=2)
    assert March([burst, sound], 100).to(200) is False
    assert (burst.over, sound.over, sound.step) == (True, True, 200)
    assert 60 < burst.step < 200
    assert list(burst.diverged) == [1]
    assert not sound.diverged


def test_one_by_one_is_what_a_join_must_equal(make: Any) -> None:
    pairs = [(make(seed=seed), make(seed=seed, model__breaks=10**6)) for seed in range(3)]
    together, alone = zip(*pairs, strict=True)
    Tiny.join(together).advance(0, 50)
    OneByOne(alone).advance(0, 50)
    for a, b in pairs:
        assert a.x.tolist() == b.x.tolist()
        assert (
            a.sgd.state_dict()["state"][0]["momentum_buffer"].tolist()
            == b.sgd.state_dict()["state"][0]["momentum_buffer"].tolist()
        )
    assert len({tuple(a.x.tolist()) for a in together}) == 3
