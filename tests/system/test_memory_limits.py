from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from partrain.errors import ResourceError
from partrain.system.machine import MIB
from partrain.system.memory_limits import UNCHECKED_BYTES, MemoryBudget, require_memory
from tests.program import ROOT


@pytest.fixture(autouse=True)
def _hundred_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: 100 * MIB)


def test_what_does_not_fit_is_refused_with_both_figures() -> None:
    require_memory(100 * MIB, "x.npz", "Free some.")
    with pytest.raises(ResourceError) as caught:
        require_memory(101 * MIB, "x.npz", "Free some.")
    expected = "x.npz: does not fit into memory: it needs 101 MiB, and 100 MiB are available. Free some."
    assert str(caught.value) == expected


PROGRAM = """
import os
from partrain.errors import ResourceError
from partrain.system.machine import private_memory
from partrain.system.memory_limits import require_memory

blocks = [b"x" * 100_000 for _ in range(1000)]
kept = blocks.pop()  # the C library returns free memory at the end of its area by itself
del blocks
before = private_memory([os.getpid()])
try:
    require_memory(2**60, "x", "")
except ResourceError:
    print(before - private_memory([os.getpid()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory with Linux' means")
def test_freed_memory_is_returned_to_the_system_before_anything_is_refused() -> None:
    # In a process of its own: in this one, other tests have left memory in which the blocks would lie.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert int(ended.stdout) > 80 * MIB


def test_little_is_granted_without_asking_and_anything_where_the_system_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: None)
    require_memory(2**60, "x", "")
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", pytest.fail)
    require_memory(UNCHECKED_BYTES, "x", "")


def test_threads_whose_memory_does_not_fit_together_follow_each_other() -> None:
    budget, lock = MemoryBudget(), threading.Lock()
    now, most = 0, 0

    def use() -> None:
        nonlocal now, most
        with budget.reserved(40 * MIB, "x", ""):
            with lock:
                now += 1
                most = max(most, now)
            entered.wait(0.05)
            with lock:
                now -= 1

    entered = threading.Event()
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(use) for _ in range(8)]:
            future.result()
    assert most <= 2


def test_memory_is_free_again_after_an_error() -> None:
    budget = MemoryBudget()
    for _ in range(3):
        with pytest.raises(KeyError), budget.reserved(90 * MIB, "x", ""):
            raise KeyError
        with pytest.raises(ResourceError), budget.reserved(101 * MIB, "x", ""):
            pytest.fail("too much was granted")
    with budget.reserved(90 * MIB, "x", ""):
        pass
