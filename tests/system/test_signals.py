"""Signals end a command at once, or after the step of a training."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import pytest

from partrain.system.signals import SIGNALS, Interrupted, Interruption, interruption_behind
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
@pytest.mark.parametrize("first", SIGNALS)
def test_further_signals_have_no_effect(first: signal.Signals, second: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.watching(), interruption.deferred():
        raise_signal(first)
        for _ in range(10):
            raise_signal(second)
    assert interruption.received == first


def test_further_signals_do_not_interrupt_the_clean_up() -> None:
    ended = []

    def end() -> None:
        for number in SIGNALS:
            raise_signal(number)
        ended.append(True)

    with contextlib.ExitStack() as block:
        block.enter_context(pytest.raises(Interrupted, match="SIGHUP"))
        block.enter_context(Interruption().watching())
        block.callback(end)
        raise_signal(signal.SIGHUP)
    assert ended


@pytest.mark.parametrize("first", SIGNALS)
def test_second_sigint_ends_the_process_at_once_if_a_second_has_passed(
    run_partrain: Callable[..., Result], first: signal.Signals
) -> None:
    program = f"""
import signal, time
from partrain.system.signals import Interruption
time.monotonic = lambda: 100.0
interruption = Interruption()
with interruption.watching(), interruption.deferred():
    signal.raise_signal({int(first)})
    for time.monotonic in (lambda: 100.0, lambda: 100.9, lambda: 101.5):
        print(time.monotonic(), flush=True)
        signal.raise_signal(signal.SIGINT)
"""
    result = run_partrain(code=program)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "100.0\n100.9\n101.5\n", "")


def test_second_sigint_has_no_effect_in_a_larger_program() -> None:
    interruption = Interruption(second_exits=False)
    clock = iter([100.0, 200.0, 300.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        with interruption.watching(), interruption.deferred():
            for _ in range(3):
                raise_signal(signal.SIGINT)
    assert interruption.received == signal.SIGINT


def test_interruption_is_found_behind_the_error_that_other_code_made_of_it() -> None:
    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            raise_signal(signal.SIGTERM)

    with pytest.raises((RuntimeError, Interrupted)) as raised, Interruption().watching():
        type("Owner", (), {"named": Named()})
    found = interruption_behind(raised.value)
    assert found is not None
    assert found.exit_code == 143
    assert interruption_behind(RuntimeError()) is None


def test_signal_whose_exception_was_swallowed_is_followed_by_the_next_one() -> None:
    class Finalised:
        def __del__(self) -> None:
            raise_signal(signal.SIGTERM)

    interruption = Interruption()
    with interruption.watching():
        Finalised()  # Python ignores an exception in a finaliser
        assert interruption.received == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            raise_signal(signal.SIGHUP)
