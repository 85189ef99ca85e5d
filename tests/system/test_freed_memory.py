from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from partrain.system.freed_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [bytearray(4 << 20) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone can be told to keep freed memory")
def test_memory_that_was_freed_is_not_mapped_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    page = resource.getpagesize()
    assert before > 20 * (16 << 20) // page // 4  # the C library gives most of it back by itself
    assert after < 100
