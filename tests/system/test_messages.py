from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from partrain.system.messages import Messages
from tests.system.conftest import Terminal


def test_everything_goes_to_stderr_and_nothing_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    messages = Messages(quiet=False)
    messages.say("said")
    messages.warn("warned")
    messages.error("failed")
    messages.note("noted")
    said = capsys.readouterr()
    assert said.err == "said\nwarning: warned\nerror: failed\n"
    assert said.out == ""


def test_quiet_says_warnings_and_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    messages = Messages(quiet=True)
    messages.say("said")
    messages.warn("warned")
    messages.error("failed")
    progress = messages.progress(first_step=0, last_step=1, num_epochs=1)
    progress.step(1, 1, 0.5, 100)
    progress.close()
    assert capsys.readouterr().err == "warning: warned\nerror: failed\n"


def test_log_gets_everything_even_what_was_said_before_it_and_in_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    messages = Messages(quiet=True)
    lines: list[str] = []
    messages.say("before")
    messages.attach_log(lines.append)
    messages.say("said")
    messages.warn("warned")
    messages.error("failed")
    messages.note("noted")
    messages.detach_log()
    messages.say("after")
    assert lines == ["before", "said", "warning: warned", "error: failed", "noted"]


def test_warnings_are_bright_on_a_terminal(use_terminal: Callable[[], Terminal]) -> None:
    terminal = use_terminal()
    messages = Messages(quiet=False)
    messages.warn("careful")
    messages.error("over")
    assert "\033[1;33mwarning: careful\033[0m" in terminal.getvalue()
    assert "\033[1;31merror: over\033[0m" in terminal.getvalue()


def test_no_color_is_honoured(use_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    messages = Messages(quiet=False)
    messages.warn("careful")
    messages.error("over")
    assert "\033" not in terminal.getvalue()
    assert "warning: careful" in terminal.getvalue()


def test_log_holds_no_colours(use_terminal: Callable[[], Terminal]) -> None:
    use_terminal()
    messages = Messages(quiet=False)
    lines: list[str] = []
    messages.attach_log(lines.append)
    messages.warn("careful")
    assert lines == ["warning: careful"]


def test_moving_progress_shows_epoch_step_loss_rate_and_time_left(
    use_terminal: Callable[[], Terminal], pass_time: Callable[[float], None]
) -> None:
    terminal = use_terminal()
    progress = Messages(quiet=False).progress(first_step=0, last_step=400, num_epochs=2)
    for step in range(1, 101):
        pass_time(0.5)
        progress.step(step, 1, 0.25, 617)
    progress.close()
    text = terminal.getvalue()
    assert "epoch 1/2" in text
    assert "step 100/400" in text
    assert "loss 0.2500" in text
    assert re.search(r"1,234 examples/s", text)
    assert re.search(r"\d\d:\d\d left", text)
    assert "\r" in text


def test_moving_progress_counts_from_the_first_step(
    use_terminal: Callable[[], Terminal], pass_time: Callable[[float], None]
) -> None:
    terminal = use_terminal()
    progress = Messages(quiet=False).progress(first_step=300, last_step=400, num_epochs=2)
    pass_time(1)
    progress.step(301, 2, 0.25, 10)
    progress.close()
    assert "step 301/400" in terminal.getvalue()


def test_plain_progress_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    progress = Messages(quiet=False).progress(first_step=0, last_step=100, num_epochs=2)
    for step in range(1, 101):
        pass_time(0.3)
        progress.step(step, 1 + step // 51, 2.0 / step, 600)
    progress.close()
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said
    assert 5 <= len(lines) <= 8  # 30 seconds
    for line in lines:
        assert re.fullmatch(r"epoch [12]/2  step \d+/100  loss \d\.\d{4}  2,000 examples/s  \d\d:\d\d left", line)
    assert "step 100/100" in lines[-1]
    assert lines[-1].endswith("00:00 left")


def test_time_left_is_that_of_the_steps_left(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    progress = Messages(quiet=False).progress(first_step=100, last_step=200, num_epochs=1)
    for step in range(101, 121):
        pass_time(1)
        progress.step(step, 1, 1.0, 1)
    steps_to_seconds = {
        int(step): 60 * int(minutes) + int(seconds)
        for step, minutes, seconds in re.findall(r"step (\d+)/200 .* (\d\d):(\d\d) left", capsys.readouterr().err)
    }
    assert len(steps_to_seconds) >= 3
    assert all(seconds == 200 - step for step, seconds in steps_to_seconds.items())
