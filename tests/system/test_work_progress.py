from __future__ import annotations

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


def test_bar_shows_what_is_done_and_disappears(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with WorkProgress("compiling", "kernels", 20, lines.append, has_bar=True) as progress:
        for number in range(1, 21):
            progress.show(number)
    said = capsys.readouterr().err
    assert "compiling:   0%" in said
    assert "/20 [" in said
    assert said.endswith("\r")
    assert not lines
