from __future__ import annotations

import io
import os
import sys

import pytest

from partrain.system import work_progress
from partrain.system.work_progress import WorkProgress


def test_lines_say_how_much_is_done_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(work_progress.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    with WorkProgress("compiling", "kernels", 2000, lines.append, has_bar=False) as progress:
        for _ in range(10):
            now[0] += 1
            progress.step()
        now[0] += 6
        progress.show(1500)
    assert lines == ["compiling: 6 of 2,000 kernels", "compiling: 1,500 of 2,000 kernels"]


class Terminal(io.StringIO):
    """A stderr that is a terminal; what is written to it is kept."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def test_bar_shows_what_is_done_and_disappears_even_on_a_terminal_of_unknown_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    master, slave = os.openpty()
    terminal = Terminal(slave)
    monkeypatch.setattr(sys, "stderr", terminal)
    lines: list[str] = []
    try:
        with WorkProgress("compiling", "kernels", 20, lines.append, has_bar=True) as progress:
            for number in range(1, 21):
                progress.show(number)
    finally:
        os.close(slave)
        os.close(master)
    assert "compiling:   0%" in terminal.getvalue()
    assert "/20 kernels [" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert not lines
