from __future__ import annotations

from collections.abc import Callable

import pytest

from partrain.system.messages import Messages

HOSTILE = "a\033[2J\x9bm\rb\n\u202ec"
SHOWN = "a\ufffd[2J\ufffdm\ufffdb\n\ufffdc"

KINDS: dict[str, Callable[[Messages], Callable[[str], None]]] = {
    "": lambda messages: messages.say,
    "warning: ": lambda messages: messages.warn,
    "error: ": lambda messages: messages.error,
}


@pytest.mark.parametrize("start", KINDS)
def test_messages_cannot_control_the_terminal_nor_a_reader_of_the_log(
    capsys: pytest.CaptureFixture[str], start: str
) -> None:
    messages = Messages(quiet=False)
    lines: list[str] = []
    messages.attach_log(lines.append)
    KINDS[start](messages)(HOSTILE)
    messages.note(HOSTILE)
    assert capsys.readouterr().err == f"{start}{SHOWN}\n"
    assert lines == [start + SHOWN, SHOWN]
