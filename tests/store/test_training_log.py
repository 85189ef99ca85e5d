from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from partrain.store.training_log import TrainingLog


def test_lines_are_appended_with_the_time(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    for line in ("first", "zweite \udc80"):
        log = TrainingLog(path)
        log.write(line)
        log.close()
    first, second = path.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ first", first)
    assert second.endswith("Z zweite \\udc80")


def test_a_full_disk_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = TrainingLog(tmp_path / "train.log")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write("lost")
    log.write("kept")
    log.close()
    assert (tmp_path / "train.log").read_text().endswith("Z kept\n")
