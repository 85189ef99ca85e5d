from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import is_running, wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")

SLEEPER = """
import sys, time
from partrain.system.parent_death import end_with_parent
end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}, str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def test_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    wait_until(lambda: not is_running(child), "the end of the child")


def test_process_whose_parent_is_gone_already_ends_at_once() -> None:
    begin = time.monotonic()
    nobody = os.getpid() + 1  # not the parent, as if that had ended and another had taken its place
    done = subprocess.run([sys.executable, "-c", SLEEPER, str(nobody)], capture_output=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
    assert time.monotonic() - begin < 60
