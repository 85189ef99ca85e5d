from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from partrain.system.timer import Stopwatch


def test_every_moment_belongs_to_one_activity(pass_time: Callable[[float], None]) -> None:
    clock = Stopwatch("startup", "train", "evaluation")
    pass_time(1)
    with clock.timing("train"):
        pass_time(10)
        with clock.timing("evaluation"):
            pass_time(100)
        pass_time(20)
    pass_time(2)
    assert clock.read() == {"startup": 3, "train": 30, "evaluation": 100}


def test_time_within_belongs_to_the_activity_even_if_the_block_raises(pass_time: Callable[[float], None]) -> None:
    clock = Stopwatch("startup", "train")

    def work() -> None:
        with clock.timing("train"):
            pass_time(5)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    pass_time(1)
    assert clock.read() == {"startup": 1, "train": 5}


def test_reading_takes_the_running_activity_up_to_now(pass_time: Callable[[float], None]) -> None:
    clock = Stopwatch("startup")
    for expected in (1, 2, 3):
        pass_time(1)
        assert clock.read() == {"startup": expected}


def test_what_was_read_does_not_change_later(pass_time: Callable[[float], None]) -> None:
    clock = Stopwatch("startup")
    before = clock.read()
    pass_time(5)
    clock.read()
    assert before == {"startup": 0}


def test_switch_returns_the_activity_that_had_the_time(pass_time: Callable[[float], None]) -> None:
    clock = Stopwatch("startup", "train")
    assert clock.switch("train") == "startup"
    assert clock.switch("startup") == "train"


def test_clock_on_the_wall_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Stopwatch("startup")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock.read()["startup"] < 60
