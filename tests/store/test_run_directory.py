import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.errors import ConfigError, ResourceError, RunError
from partrain.store.run_directory import RunDirectory, check_writable, validate_run_name
from tests.store.file_faults import fault_at_call

ROOT = Path(__file__).parents[2]
STARTED = datetime(2026, 11, 23, 17, 15, 2, tzinfo=UTC)
SECONDS_TO_START = 60


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def other_holder(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the run's lock; it is killed at the end."""
    code = (
        "import sys; from pathlib import Path; from partrain.store.run_directory import RunDirectory\n"
        "with RunDirectory.open(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with python(code, run.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path, "mnist", STARTED)
    run.write_run_json({"status": "running"})
    return run


def test_directory_is_named_by_utc_time_and_configuration_and_counted_up(tmp_path: Path) -> None:
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


def test_16_processes_in_one_second_make_16_directories(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", ["mnist", "a", "Größe 5+", "手書き数字", "हिन्दी", "v1.0_x-y", "a" * 100, "-"])
def test_names_in_any_script_are_admitted(name: str, tmp_path: Path) -> None:
    validate_run_name(name)
    assert RunDirectory.create(tmp_path, name, STARTED).path.parent == tmp_path


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "is empty"),
        ("../../x", "'/'"),
        ("a/b", "'/'"),
        (".hidden", "starts with a dot"),
        ("..", "starts with a dot"),
        ("a\0b", r"'\\x00'"),
        ("a\nb", r"'\\n'"),
        ("a\u202eb", "u202e"),
        ("a\udc80", "udc80"),
        ("a\\b", "holds"),
        ("a:b", "':'"),
        (" a", "space"),
        ("a ", "space"),
        ("a" * 300, "300 characters. Shorten it to at most 100"),
        ("手" * 70, "210 bytes"),
    ],
)
def test_other_names_are_refused_with_the_rule(name: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        RunDirectory.create(tmp_path / "runs", name, STARTED)
    assert str(caught.value).startswith("name: ")
    assert len(str(caught.value)) < 300
    assert os.listdir(tmp_path) == []


@settings(deadline=None)
@given(st.text(max_size=120))
def test_admitted_name_is_always_one_component_that_fits(name: str) -> None:
    try:
        validate_run_name(name)
    except ConfigError:
        return
    assert Path("runs", f"20261123-171502-{name}-16").parts[:-1] == ("runs",)
    assert len(name.encode()) <= 200
    assert "\0" not in name


def test_run_dir_that_exists_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "dangling", "folder"):
        with pytest.raises(RunError, match=f"{name}: exists already"):
            RunDirectory.create_at(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path / "folder") == []


def test_writable_folder_passes_the_check_and_nothing_stays_in_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "runs")
    check_writable(tmp_path / "new" / "runs")
    assert os.listdir(tmp_path / "new" / "runs") == []


def test_file_in_the_place_of_a_folder_is_found_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "below"):
        with pytest.raises(ResourceError, match=r"runs.*: cannot make a run directory here: .*--runs-dir"):
            check_writable(folder)
        with pytest.raises(ResourceError, match="cannot make a run directory here"):
            RunDirectory.create(folder, "mnist", STARTED)
        with pytest.raises(ResourceError, match="cannot make a run directory here"):
            RunDirectory.create_at(folder / "run")


@pytest.mark.parametrize("error_number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_cannot_take_a_directory_is_found_whoever_asks(
    error_number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, mode: int = 0o777) -> None:
        raise OSError(error_number, os.strerror(error_number), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ResourceError, match=os.strerror(error_number)):
        check_writable(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs /proc")
def test_folder_in_which_even_root_cannot_write_is_found() -> None:
    with pytest.raises(ResourceError, match="/proc/self/fdinfo: cannot make a run directory"):
        check_writable(Path("/proc/self/fdinfo"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ResourceError, match="Permission denied"):
            check_writable(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in range(1, 9):
        with fault_at_call(call, fail), pytest.raises(ResourceError, match="No space"):
            RunDirectory.create(tmp_path, "mnist", STARTED)
        assert os.listdir(tmp_path) == []
    with fault_at_call(9, fail):
        RunDirectory.create(tmp_path, "mnist", STARTED)


def test_discard_removes_what_this_object_made_and_nothing_else(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run").lock()
    run.write_run_json({"status": "running"})
    RunDirectory.open(run.path).discard()
    assert run.run_json_path.exists()
    run.discard()
    assert os.listdir(tmp_path) == []


def test_open_finds_runs_only(run: RunDirectory, tmp_path: Path) -> None:
    assert RunDirectory.open(run.path).path == run.path
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"missing: there is no such run directory"):
        RunDirectory.open(tmp_path / "missing")
    with pytest.raises(RunError, match=r"empty: is no run: it has no run\.json"):
        RunDirectory.open(tmp_path / "empty")
    with pytest.raises(RunError, match="there is no such run"):
        RunDirectory.open(run.run_json_path)


def test_second_lock_is_refused_with_host_and_process_id(run: RunDirectory) -> None:
    with other_holder(run) as process:
        expected = f"process {process.pid} on {socket.gethostname()} is writing into this run"
        began = time.monotonic()
        with pytest.raises(RunError, match=expected):
            run.lock()
        assert time.monotonic() - began >= 0.2
        assert run.probe_holder() == {"host": socket.gethostname(), "pid": process.pid}


def test_of_two_processes_that_lock_at_once_one_gets_it(run: RunDirectory) -> None:
    code = (
        "import sys; from pathlib import Path; from partrain.errors import RunError\n"
        "from partrain.store.run_directory import RunDirectory\n"
        "run = RunDirectory.open(Path(sys.argv[1])); print(flush=True); sys.stdin.readline()\n"
        "try: run.lock(); print('locked', flush=True)\n"
        "except RunError as error: print(error, flush=True)\n"
        "sys.stdin.readline()"
    )
    processes = [python(code, run.path) for _ in range(4)]
    answers = []
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    winner = processes[answers.index("locked")]
    assert [f"process {winner.pid} on " in answer for answer in answers].count(True) == 3
    for process in processes:
        process.communicate("\n", timeout=SECONDS_TO_START)


def test_lock_is_free_again_after_unlock_and_after_the_with_block(run: RunDirectory) -> None:
    run.lock()
    run.unlock()
    run.unlock()
    with run.lock() as locked:
        assert locked is run
        assert run.probe_holder() == {"host": socket.gethostname(), "pid": os.getpid()}
    assert run.probe_holder() is None
    with RunDirectory.open(run.path).lock():
        pass


def test_readers_that_probe_all_the_time_do_not_make_a_lock_fail(run: RunDirectory) -> None:
    code = (
        "import sys; from pathlib import Path; from partrain.store.run_directory import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1]), created=False); print(flush=True)\n"
        "while True: run.probe_holder()"
    )
    with python(code, run.path) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        try:
            for _ in range(200):
                run.lock()
                run.unlock()
        finally:
            reader.kill()


def test_started_programs_do_not_inherit_the_lock(run: RunDirectory) -> None:
    run.lock()
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None
        child.stdout.readline()
        run.unlock()
        assert run.probe_holder() is None


def test_lock_in_a_directory_that_cannot_be_written_says_so(run: RunDirectory) -> None:
    run.lock_path.mkdir()
    with pytest.raises(ResourceError, match=r"run\.lock: cannot be locked: Is a directory"):
        run.lock()


def test_lock_sweeps_the_leftovers_of_the_dead(run: RunDirectory) -> None:
    (run.path / f".run.json.{os.getpid()}.tmp").write_text("{")
    with run.lock():
        assert not list(run.path.glob(".*.tmp"))


def test_status_is_running_under_a_lock_and_interrupted_after_kill_9(run: RunDirectory) -> None:
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


def test_holder_that_has_not_yet_written_its_name_is_still_a_holder(run: RunDirectory) -> None:
    with run.lock():
        for text in ("", "{", "[]", '{"host": 1}'):
            run.lock_path.write_text(text)
            assert run.probe_holder() == {"host": None, "pid": None}
            assert run.status() == "running"


def test_run_json_and_summary_come_back_with_their_format(run: RunDirectory) -> None:
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
        (b"[1]", "no JSON object with a number"),
        (b"{}", "no JSON object with a number"),
        (b'{"format": "1"}', "no JSON object with a number"),
        (b'{"format": 1}', "has no status"),
        (b'{"format": 1, "status": 7}', "has no status"),
        (b'{"format": 2, "status": "running"}', "has format 2.*a newer partrain wrote it. Upgrade"),
    ],
)
def test_unusable_run_json_is_named(content: bytes, message: str, run: RunDirectory) -> None:
    run.run_json_path.write_bytes(content)
    with pytest.raises(RunError, match=rf"run\.json: .*{message}"):
        run.status()


def test_missing_summary_is_named(run: RunDirectory) -> None:
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
        run = RunDirectory(Path(folder), created=False)
        run.run_json_path.write_bytes(content)
        with contextlib.suppress(RunError):
            assert isinstance(run.status(), str)
