from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import tempfile
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.errors import ResourceError, RunError
from partrain.store.run_directory import RunDirectory
from tests.store.file_faults import fault_at_call
from tests.store.new_runs import SECONDS_TO_START, STARTED, other_holder, python


def test_a_directory_is_named_by_utc_time_and_configuration_with_a_number_if_it_exists(tmp_path: Path) -> None:
    in_kathmandu = STARTED.astimezone(timezone(timedelta(hours=5, minutes=45)))
    runs = [RunDirectory.create(tmp_path / "new" / "runs", "mnist", in_kathmandu) for _ in range(3)]
    names = ["20261123-171502-mnist", "20261123-171502-mnist-2", "20261123-171502-mnist-3"]
    assert [run.path.name for run in runs] == names
    assert all(run.checkpoints_path.is_dir() for run in runs)


def test_paths_are_those_of_the_documentation(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    paths = [
        run.config_path,
        run.run_json_path,
        run.metrics_path,
        run.summary_path,
        run.train_log_path,
        run.checkpoints_path,
        run.plots_path,
        run.evaluation_path("test"),
    ]
    names = "config.yaml run.json metrics.jsonl summary.json train.log checkpoints plots evaluation-test.json"
    assert paths == [tmp_path / "run" / name for name in names.split()]


def test_16_processes_in_one_second_create_16_directories(tmp_path: Path) -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from partrain.store.run_directory import RunDirectory\n"
        "print(flush=True); sys.stdin.readline()\n"
        "started = datetime(2026, 11, 23, 17, 15, 2, tzinfo=UTC)\n"
        "print(RunDirectory.create(Path(sys.argv[1]), 'mnist', started).path.name)"
    )
    processes = [python(code, tmp_path / "runs") for _ in range(16)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    names = set()
    for process in processes:  # all are ready: let them loose together
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        names.add(process.communicate(timeout=SECONDS_TO_START)[0].strip())
    assert names == {f"20261123-171502-mnist{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 17)))}
    assert set(os.listdir(tmp_path / "runs")) == names


def test_an_existing_path_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "dangling", "folder"):
        with pytest.raises(RunError, match=f"{name}: exists already"):
            RunDirectory.create_at(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path / "folder") == []


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in range(1, 11):
        with fault_at_call(call, fail), pytest.raises(ResourceError, match="No space"):
            RunDirectory.create(tmp_path, "mnist", STARTED)
        assert os.listdir(tmp_path) == []
    with fault_at_call(11, fail):
        RunDirectory.create(tmp_path, "mnist", STARTED)


def test_directory_that_another_process_is_filling_is_left(tmp_path: Path) -> None:
    def fill(outer: RunDirectory) -> None:
        RunDirectory.create_at(tmp_path / "inner")
        outer.write_run_json({"status": "completed"})

    RunDirectory.create_at(tmp_path / "outer", fill)
    assert sorted(os.listdir(tmp_path)) == ["inner", "outer"]
    assert RunDirectory.open(tmp_path / "outer").status() == "completed"


def test_discard_removes_only_a_directory_that_this_object_created(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run").lock()
    run.write_run_json({"status": "running"})
    RunDirectory.open(run.path).discard()
    assert run.run_json_path.exists()
    run.discard()
    assert os.listdir(tmp_path) == []


def test_open_accepts_only_runs(run: RunDirectory, tmp_path: Path) -> None:
    assert RunDirectory.open(run.path).path == run.path
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"missing: there is no such run directory"):
        RunDirectory.open(tmp_path / "missing")
    with pytest.raises(RunError, match=r"empty: is not a run: it has no run\.json"):
        RunDirectory.open(tmp_path / "empty")
    with pytest.raises(RunError, match="there is no such run"):
        RunDirectory.open(run.run_json_path)


def test_the_status_is_running_under_a_lock_and_interrupted_after_kill_9(run: RunDirectory) -> None:
    assert run.status() == "interrupted"
    with other_holder(run) as process:
        assert run.status() == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert run.status() == "interrupted"
    with run.lock():
        assert run.status() == "running"
        run.write_run_json(run.read_run_json() | {"status": "completed"})
    assert run.status() == "completed"


def test_documents_are_read_back_with_their_format(run: RunDirectory) -> None:
    run.write_run_json({"status": "completed", "host": "Größe"})
    run.write_summary({"steps": 3, "final": {"train/loss": float("nan")}})
    assert run.read_run_json() == {"format": 1, "status": "completed", "host": "Größe"}
    assert run.read_summary() == {"format": 1, "steps": 3, "final": {"train/loss": None}}
    assert run.run_json_path.read_text().startswith('{\n  "format": 1,\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged, not JSON"),
        (b'{"format": 1, "st', "is damaged, not JSON"),
        (b"\xff\xfe\x00", "is damaged, not JSON"),
        (b"[" * 100_000, "is damaged, not JSON"),
        (b"9" * 5000, "is damaged, not JSON"),
        (b"[1]", "not a JSON object with a number"),
        (b"{}", "not a JSON object with a number"),
        (b'{"format": "1"}', "not a JSON object with a number"),
        (b'{"format": 1}', "has no status"),
        (b'{"format": 1, "status": 7}', "has no status"),
        (b'{"format": 2, "status": "running"}', "has format 2.*a newer partrain wrote it. Upgrade"),
    ],
)
def test_an_unusable_run_json_is_named(content: bytes, message: str, run: RunDirectory) -> None:
    run.run_json_path.write_bytes(content)
    with pytest.raises(RunError, match=rf"run\.json: .*{message}"):
        run.status()


def test_a_missing_summary_is_named(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"summary\.json: cannot be read: No such file"):
        run.read_summary()


JSON_VALUES = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@settings(deadline=None)
@given(
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from(["format", "status", "x"]), JSON_VALUES).map(
        lambda content: json.dumps(content).encode()
    )
)
def test_any_run_json_gives_a_status_or_a_message(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        run.run_json_path.write_bytes(content)
        with contextlib.suppress(RunError):
            assert isinstance(run.status(), str)
