"""Signals that ask to stop: noted, obeyed at a step, and handed on."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tiny import job_of, planned

from featscale.training.group import ready, train
from featscale.training.preemption import SIGNALS, Preempted, Preemption


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(signum: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Preemption() as preemption:
        assert not preemption.asked()
        preemption.check()
        os.kill(os.getpid(), signum)
        assert preemption.asked()
        with pytest.raises(Preempted, match=f"{signum.name}: here") as stop:
            preemption.check("here")
    assert stop.value.exit_code == 128 + signum
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_interrupt_is_not_waited_for() -> None:
    with Preemption():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as stop:
            os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(stop.value, Preempted)


def test_it_is_no_failure() -> None:
    assert not issubclass(Preempted, Exception)


def test_what_others_took_is_taken_again() -> None:
    with Preemption() as preemption:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        preemption.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.asked()


def test_the_handler_of_a_launcher_is_called_after_all_is_saved() -> None:
    calls: list[Any] = []
    before = signal.signal(signal.SIGUSR2, lambda *given: calls.append(given))
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert (preemption.asked(), calls) == (True, [])
            preemption.forward()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert calls == [(signal.SIGUSR2, None)]


def test_an_orphan_stops() -> None:
    with Preemption(orphaned=lambda: True) as preemption, pytest.raises(Preempted, match="SIGTERM"):
        preemption.check()


def test_outside_the_main_thread_nothing_is_taken() -> None:
    seen = []

    def run() -> None:
        with Preemption() as preemption:
            seen.append(preemption.asked())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def test_training_stops_inside_a_chunk_saved_and_goes_on_to_the_same_curve(tmp_path: Path) -> None:
    with ExitStack() as claims:
        jobs = [job_of(tmp_path / "stopped", planned(seed=seed, trainer__chunk=200), claims) for seed in range(2)]
        for job in jobs:
            ready(job)
        advance = jobs[0].module.prepare

        def signalled(step: int) -> None:
            if step == 57:
                os.kill(os.getpid(), signal.SIGUSR2)
            advance(step)

        jobs[0].module.prepare = signalled
        with Preemption() as preemption, pytest.raises(Preempted, match="SIGUSR2: saved at step"):
            train(jobs, preemption)
        stopped = jobs[0].module.step
        assert 57 < stopped < 200
    with ExitStack() as claims, Preemption() as preemption:
        resumed = [job_of(tmp_path / "stopped", planned(seed=seed, trainer__chunk=200), claims) for seed in range(2)]
        whole = [job_of(tmp_path / "whole", planned(seed=seed), claims) for seed in range(2)]
        assert [job.module.step for job in resumed] == [stopped] * 2
        for job in (*resumed, *whole):
            ready(job)
        train(resumed, preemption)
        train(whole, preemption)
    for a, b in zip(resumed, whole, strict=True):
        assert a.directory.read_record().status == "done"
        assert a.directory.read_curve().equals(b.directory.read_curve())
