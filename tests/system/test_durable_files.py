import errno
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.system.durable_files import json_text, make_folders, sweep_temporaries, write_durably, write_json_durably
from tests.store.file_faults import fault_at_call, recorded_calls


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_written_data_replaces_the_old_content_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old and long", b"new", b""):
        write_durably(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


def test_file_is_synced_before_the_rename_and_the_folder_after_it(tmp_path: Path) -> None:
    with recorded_calls() as calls:
        write_durably(tmp_path / "file", b"data")
    assert calls.names == ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_durably(tmp_path / "file", b"ten bytes.")
    assert (tmp_path / "file").read_bytes() == b"ten bytes."


@pytest.mark.parametrize("interruption", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_failure_at_any_call_leaves_old_or_new_and_no_temporary(tmp_path: Path, interruption: BaseException) -> None:
    def fail() -> None:
        raise interruption

    path = tmp_path / "file"
    for number in range(1, 9):
        path.write_bytes(b"old")
        with fault_at_call(number, fail), pytest.raises(type(interruption)):
            write_durably(path, b"new")
        assert path.read_bytes() == (b"old" if number <= 5 else b"new")
        assert os.listdir(tmp_path) == ["file"]


def test_file_gets_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old_umask = os.umask(0o027)
    try:
        write_durably(tmp_path / "file", b"")
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_leftover_of_the_same_process_id_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}.tmp").write_bytes(b"left by a container's earlier process 1")
    write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_sweep_takes_leftovers_of_the_dead_and_nothing_else(tmp_path: Path) -> None:
    stays = {"file", ".hidden", f".file.{os.getppid()}.tmp", "a.123.tmp", ".file.x.tmp"}
    goes = {f".file.{dead_pid()}.tmp", f".file.{os.getpid()}.tmp", ".file.99999999999999999999.tmp"}
    for name in stays | goes:
        (tmp_path / name).write_bytes(b"")
    sweep_temporaries(tmp_path)
    assert set(os.listdir(tmp_path)) == stays


def test_json_keeps_order_and_text_and_turns_non_finite_floats_to_null(tmp_path: Path) -> None:
    content = {"z": 1, "a": {"loss": math.nan, "list": [math.inf, (-math.inf, 0.1)]}, "text": "Größe \udc80"}
    write_json_durably(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text("utf-8")
    assert text.startswith('{\n  "z": 1,\n')
    assert text.endswith("}\n")
    assert "Größe" in text
    expected = {"z": 1, "a": {"loss": None, "list": [None, [None, 0.1]]}, "text": "Größe \udc80"}
    assert json.loads(text) == expected


def test_json_has_a_line_for_each_row_of_a_matrix_and_each_entry_of_a_list() -> None:
    content = {"rows": [[1, 2], [3, 4]], "entries": [{"a": 1, "b": [2]}], "numbers": [1, 2], "empty": [{}, []], "d": {}}
    assert json.loads(json_text(content)) == content
    assert json_text(content).splitlines() == [
        "{",
        '  "rows": [',
        "    [1, 2],",
        "    [3, 4]",
        "  ],",
        '  "entries": [',
        '    {"a": 1, "b": [2]}',
        "  ],",
        '  "numbers": [1, 2],',
        '  "empty": [',
        "    {},",
        "    []",
        "  ],",
        '  "d": {}',
        "}",
    ]


def test_json_of_something_that_is_no_plain_value_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("{}")
    with pytest.raises(TypeError):
        write_json_durably(path, {"object": object()})
    assert path.read_text() == "{}"


def test_folders_are_made_with_those_above_and_may_exist(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    make_folders(folder)
    make_folders(folder)
    assert folder.is_dir()
    (folder / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_folders(folder / "file")
    with pytest.raises(NotADirectoryError):
        make_folders(folder / "file" / "below")


def test_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    write_durably(tmp_path / "file", b"new")  # the link is gone
    assert (tmp_path / "file").read_bytes() == b"new"
