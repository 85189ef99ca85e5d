from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from partrain.store.run_notes import append_note, read_notes


def test_notes_are_read_in_their_order_with_their_times(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    assert read_notes(path) == []
    for text in ("first", "zweite Notiz\nmit Zeile", "\udcff"):
        append_note(path, text)
    assert [note.text for note in read_notes(path)] == ["first", "zweite Notiz\nmit Zeile", "\udcff"]
    for note in read_notes(path):
        assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(note.time) < timedelta(minutes=5)


def test_half_a_line_is_skipped_and_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('[1]\n{"time": 3, "text": "x"}\n{"time": "2026-11-27T1')
    append_note(path, "after the power failure")
    assert [note.text for note in read_notes(path)] == ["after the power failure"]


def test_full_disk_leaves_the_notes_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes.jsonl"
    append_note(path, "kept")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
    with pytest.raises(OSError, match="No space left") as raised:
        append_note(path, "lost")
    assert raised.value.errno == errno.ENOSPC
    assert [note.text for note in read_notes(path)] == ["kept"]
    assert path.read_bytes().count(b"\n") == 1
