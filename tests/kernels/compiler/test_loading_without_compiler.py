"""What a process imports that only loads kernels, as the coordinator and its workers do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.program import ROOT

PROGRAM = """
import sys
import numpy as np
from partrain.kernels.compiler.loading import load
from partrain.kernels.philox import philox

compiled = load([philox], "float32")
words = np.zeros((4, 1), np.uint32)
philox(np.uint64(1), words)
print(compiled, *words.ravel(), *sys.modules)
"""


def test_process_that_finds_its_kernels_in_the_cache_imports_neither_numba_nor_llvm(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    printed = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        printed.append(ended.stdout.split())
    (compiled, *words, first_modules), (loaded, *same_words, modules) = ((p[0], *p[1:5], p[5:]) for p in printed)
    assert (compiled, loaded) == ("True", "False")
    assert words == same_words
    compiler = {"numba", "llvmlite", "llvmlite.binding"}
    assert not compiler & set(modules)
    assert compiler <= set(first_modules)
