from __future__ import annotations

import fcntl
import io
import os
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest


class Terminal(io.StringIO):
    """A stderr that is a terminal with 100 columns; what is written to it is kept."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor


@pytest.fixture
def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Terminal]]:
    """Make stderr a terminal: in the test itself, since pytest replaces stderr between a fixture and the test."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def use() -> Terminal:
        monkeypatch.delenv("NO_COLOR", raising=False)
        terminal = Terminal(slave)
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    yield use
    os.close(slave)
    os.close(master)


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A monotonic clock that goes on when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance
