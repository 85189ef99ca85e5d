"""`partrain note`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from partrain.analysis.listing import list_runs
from partrain.analysis.run_table import describe
from partrain.system.terminal_text import num_columns
from tests.program import Result
from tests.sample_runs import write_run


def test_note_is_printed_and_shown_by_list_and_compare_and_on_the_page(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.1)
    assert call_partrain("note", a, "-q") == Result(0, "", "")
    for words in (["an early remark"], ["too", "hot\x1b[2J\n<script>"]):
        assert call_partrain("note", a, *words) == Result(0, "", f"noted in {a}\n")
    printed = call_partrain("note", a)
    assert [line.split("  ")[1] for line in printed.stdout.splitlines()[:2]] == ["an early remark", "too hot�[2J"]
    notes = json.loads(call_partrain("note", a, "--json").stdout)
    assert [note["text"] for note in notes] == ["an early remark", "too hot\x1b[2J\n<script>"]
    table = call_partrain("list", "--runs-dir", tmp_path).stdout.splitlines()
    assert table[0].endswith("note")
    assert next(line for line in table if line.startswith("a ")).endswith("  too hot�[2J <script>")
    compared = call_partrain("compare", a, b, "--html", tmp_path / "page.html")
    assert f"A, {datetime.now(UTC):%Y-}" in compared.stdout
    assert ": an early remark\n" in compared.stdout
    page = (tmp_path / "page.html").read_text()
    assert ": an early remark</li>" in page
    assert "&lt;script&gt;</li>" in page
    facts = json.loads(call_partrain("compare", a, b, "--json").stdout)
    assert [len(run["user_notes"]) for run in facts["runs"]] == [2, 0]


def test_list_has_no_column_for_notes_without_a_note(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    assert "note" not in describe(list_runs(tmp_path), datetime.now(UTC)).splitlines()[0]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_long_note_is_cut_to_the_terminal(call_partrain: Callable[..., Result], tmp_path: Path, width: int) -> None:
    run = write_run(tmp_path / "20261127-184804-mnist")
    assert call_partrain("note", run, 50 * "words ").exit_code == 0
    lines = describe(list_runs(tmp_path), datetime.now(UTC), width=width).splitlines()
    assert max(map(num_columns, lines)) <= width
    assert lines[0].endswith("note")
    assert lines[1].endswith("…")
    assert ("config" in lines[0]) == (width == 200)


def test_mistakes_are_reported(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for words, said in ((["zzz", "x"], "no such run"), ([run, " "], "empty"), ([tmp_path / "empty", "x"], "not a run")):
        result = call_partrain("note", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
    (run / "notes.jsonl").mkdir()
    result = call_partrain("note", run)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "notes.jsonl: cannot be read: Is a directory" in result.stderr
    (run / "notes.jsonl").rmdir()
    (run / "notes.jsonl").symlink_to(tmp_path / "elsewhere")
    result = call_partrain("note", run, "x")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert not os.path.lexists(tmp_path / "elsewhere")
