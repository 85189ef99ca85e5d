from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.system import detached_work
from partrain.system.detached_work import run_detached
from tests.processes import is_running, wait_until
from tests.program import ROOT


def test_work_is_done_when_it_returns(tmp_path: Path) -> None:
    run_detached(lambda: (tmp_path / "done").write_text(str(os.getpid())))
    assert int((tmp_path / "done").read_text()) != os.getpid()


def test_work_is_done_here_if_no_process_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    run_detached(lambda: (tmp_path / "done").write_text(str(os.getpid())))
    assert int((tmp_path / "done").read_text()) == os.getpid()


def test_error_of_the_system_is_raised_here() -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as raised:
        run_detached(fail)
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("fate", ["it dies", "it hangs"])
def test_work_that_its_process_does_not_finish_is_done_here(
    tmp_path: Path, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()
    monkeypatch.setattr(detached_work, "TIMEOUT_SECONDS", 60.0 if fate == "it dies" else 0.2)

    def work() -> None:
        if os.getpid() != here:
            if fate == "it dies":
                os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        (tmp_path / "done").touch()

    run_detached(work)
    assert (tmp_path / "done").exists()


def test_work_goes_on_when_the_whole_group_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from partrain.system.detached_work import run_detached
folder = Path({str(tmp_path)!r})
def work():
    (folder / "begun").write_text(str(os.getpid()))
    while not (folder / "go on").exists():
        time.sleep(0.01)
    (folder / "done").touch()
run_detached(work)
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True, stdout=-1)
    wait_until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(), "the beginning")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.communicate()[0] == b"", "nobody waits for the end of its output"
    assert process.returncode == -signal.SIGKILL
    (tmp_path / "go on").touch()
    wait_until((tmp_path / "done").exists, "the work's end")
    worker = int((tmp_path / "begun").read_text())
    wait_until(lambda: not is_running(worker), "the end of its process")
