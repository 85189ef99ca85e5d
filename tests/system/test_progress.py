"""The last display of a training run's progress is right, however the training ends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from partrain.system.messages import Messages, Progress
from tests.system.conftest import Terminal


class Clock:
    """The time, and the seconds of training in it."""

    def __init__(self) -> None:
        self.now, self.training_seconds = 1000.0, 0.0

    def train(self, progress: Progress, steps: range, *, seconds: float = 0.1) -> None:
        """Make steps of 200 examples."""
        for step in steps:
            self.now += seconds
            self.training_seconds += seconds
            progress.step(step, -(-step // 50), 1 / step, 200)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def start(clock: Clock) -> Progress:
    messages = Messages(quiet=False)
    return messages.progress(first_step=0, last_step=100, num_epochs=2, training_seconds=lambda: clock.training_seconds)


def test_rate_is_that_of_the_training_without_evaluations(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = start(clock)
    clock.train(progress, range(1, 40))
    clock.now += 60  # an evaluation
    clock.train(progress, range(40, 101))
    clock.now += 60
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all("  2,000 examples/s  " in line for line in lines)
    assert lines[-1].startswith("epoch 2/2  step 100/100  loss 0.0100")
    assert lines[-1].endswith("00:00 left")


def test_last_line_has_the_rate_of_all_steps(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = start(clock)
    clock.train(progress, range(1, 100))
    clock.train(progress, range(100, 101), seconds=0.05)
    progress.close()
    assert f"  {100 * 200 / 9.95:,.0f} examples/s  " in capsys.readouterr().err.splitlines()[-1]


def test_training_that_ends_early_ends_at_its_last_step(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = start(clock)
    clock.train(progress, range(1, 61))
    progress.close(is_complete=True)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("epoch 2/2  step 60/60 ")
    assert last.endswith("00:00 left")


def test_interrupted_training_ends_at_its_last_step_of_all(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = start(clock)
    clock.train(progress, range(1, 61))
    progress.close()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("epoch 2/2  step 60/100 ")
    assert last.endswith("00:04 left")


def test_line_is_not_repeated_and_no_line_is_said_without_a_step(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = start(clock)
    clock.train(progress, range(1, 2), seconds=6)
    progress.close()
    assert len(capsys.readouterr().err.splitlines()) == 1
    start(clock).close(is_complete=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("is_complete", "end"), [(True, r"100%.* step 60/60, 00:00 left"), (False, r" 60%.* step 60/100, 00:04 left")]
)
def test_bar_ends_at_the_last_step(
    clock: Clock,
    use_terminal: Callable[[], Terminal],
    is_complete: bool,
    end: str,
) -> None:
    terminal = use_terminal()
    progress = start(clock)
    clock.train(progress, range(1, 60), seconds=0.11)
    clock.train(progress, range(60, 61), seconds=0.01)
    progress.close(is_complete=is_complete)
    assert re.search(end + r", loss 0\.0167, 1,846 examples/s", terminal.getvalue().split("\r")[-1])
