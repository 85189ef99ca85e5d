from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from partrain.errors import ResourceError, RunError
from partrain.store.run_directory import RunDirectory
from tests.store.new_runs import SECONDS_TO_START, other_holder, python


def test_a_second_lock_is_refused_with_host_and_process_id(run: RunDirectory) -> None:
    with other_holder(run) as process:
        expected = f"process {process.pid} on {socket.gethostname()} is writing into this run"
        began = time.monotonic()
        with pytest.raises(RunError, match=expected):
            run.lock()
        assert time.monotonic() - began >= 0.2
        assert run.lock_holder() == {"host": socket.gethostname(), "pid": process.pid}


def test_of_several_processes_that_lock_at_once_one_succeeds(run: RunDirectory) -> None:
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


def test_the_lock_is_free_after_unlock_and_after_the_with_block(run: RunDirectory) -> None:
    run.lock()
    run.unlock()
    run.unlock()
    with run.lock() as locked:
        assert locked is run
        assert run.lock_holder() == {"host": socket.gethostname(), "pid": os.getpid()}
    assert run.lock_holder() is None
    with RunDirectory.open(run.path).lock():
        pass


def test_readers_that_always_ask_for_the_holder_do_not_make_a_lock_fail(run: RunDirectory) -> None:
    code = (
        "import sys; from pathlib import Path; from partrain.store.run_directory import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1])); print(flush=True)\n"
        "while True: run.lock_holder()"
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
        assert run.lock_holder() is None


def test_a_lock_file_that_cannot_be_opened_is_an_error(run: RunDirectory) -> None:
    run.lock_path.mkdir()
    with pytest.raises(ResourceError, match=r"run\.lock: cannot be locked: Is a directory"):
        run.lock()


def test_locking_removes_temporary_files_of_killed_processes(run: RunDirectory) -> None:
    (run.path / f".run.json.{os.getpid()}.tmp").write_text("{")
    with run.lock():
        assert not list(run.path.glob(".*.tmp"))


def test_a_holder_that_has_not_written_its_name_yet_counts_as_a_holder(run: RunDirectory) -> None:
    with run.lock():
        for text in ("", "{", "[]", '{"host": 1}'):
            run.lock_path.write_text(text)
            assert run.lock_holder() == {"host": None, "pid": None}
            assert run.status() == "running"
