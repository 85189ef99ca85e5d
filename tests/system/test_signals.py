"""Signals end a command at once, or after the step of a training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable

import pytest

from partrain.system.signals import SIGNALS, Interrupted, Interruption
from tests.program import Result

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def raise_signal(number: int) -> None:
    signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_outside_training_ends_the_command(number: signal.Signals) -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted) as raised, interruption.watching():
        raise_signal(number)
    assert raised.value.exit_code == EXIT_CODES[number]
    assert str(raised.value).startswith(number.name)
    assert interruption.received == number


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_training_is_recorded_only(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.watching(), interruption.deferred():
        assert interruption.received is None
        raise_signal(number)
        assert interruption.received == number


def test_except_exception_does_not_catch_an_interruption() -> None:
    interruption = Interruption()
    with pytest.raises(Interrupted), interruption.watching(), contextlib.suppress(Exception):
        raise_signal(signal.SIGTERM)


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.watching():
            raise_signal(signal.SIGHUP)
        assert interruption.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    def watch() -> None:
        with Interruption().watching():
            assert not set(before) & {signal.getsignal(number) for number in SIGNALS}
            raise KeyError

    with pytest.raises(KeyError):
        watch()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_leave_the_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def watch() -> None:
        with Interruption().watching():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.parametrize("second", SIGNALS)
def test_second_signal_ends_the_process_at_once(run_partrain: Callable[..., Result], second: signal.Signals) -> None:
    program = f"""
import os, signal
from partrain.training import training_run
from partrain.system.signals import Interruption
interruption = Interruption()
with interruption.watching(), interruption.deferred():
    signal.raise_signal(signal.SIGINT)
    print("still here", flush=True)
    try:
        signal.raise_signal({int(second)})
    finally:
        print("no longer here", flush=True)
"""
    result = run_partrain(code=program)
    assert (result.exit_code, result.stdout, result.stderr) == (EXIT_CODES[second], "still here\n", "")
