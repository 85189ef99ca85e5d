from __future__ import annotations

import signal
import sys

import pytest

from tests.kernels.compiler.tiny_kernel import (
    CACHED,
    TINY_KERNEL,
    USE_TINY_KERNEL,
    output_of,
    run,
    start,
)
from tests.processes import descendants_of, is_running, wait_until


@pytest.mark.slow
def test_processes_that_load_at_the_same_time_all_get_good_kernels(sources, tmp_path):
    processes = [
        start(USE_TINY_KERNEL, dtype, sources=sources, folder=tmp_path) for dtype in ("float32", "float64") * 2
    ]
    for process in processes:
        assert output_of(process).splitlines()[-1].startswith("[0.0, 2.0, 4.0]")
    assert run(USE_TINY_KERNEL, "float32", "float64", sources=sources, folder=tmp_path) == 2 * CACHED


# As many kernels as several processes are worth.
MANY_KERNELS = TINY_KERNEL.partition("@kernel")[0] + "".join(
    f"""
@kernel("void({{float}}[::1])")
def add_{number}(values):
    for k in range(values.size):
        values[k] += {number}
"""
    for number in range(8)
)

# {others} is what the other processes run.
USE_MANY_KERNELS = """
import numpy as np
from partrain.kernels.compiler import processes
from partrain.kernels.compiler.loading import load
import many

processes.available_processors = lambda: 3
processes.PROGRAM = {others}
kernels = [getattr(many, f"add_{{number}}") for number in range(8)]
assert load(kernels, "float32")
values = np.zeros(3, np.float32)
for kernel in kernels:
    kernel(values)
print(values.tolist(), "cached", sum(not kernel.was_compiled for kernel in kernels))
assert not load(kernels, "float32")
"""


@pytest.fixture(scope="module")
def many_sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    (folder / "many.py").write_text(MANY_KERNELS)
    return folder


TAKES_ALL = "import json, os, sys; os.read(json.loads(sys.argv[1])['queue'], 1000)"


@pytest.mark.slow
@pytest.mark.parametrize("others", ["import os; os._exit(3)", "raise ValueError", TAKES_ALL], ids=lambda code: code[:9])
def test_what_other_processes_do_not_compile_this_one_does(many_sources, tmp_path, others):
    code = USE_MANY_KERNELS.format(others=repr(others))
    assert run(code, sources=many_sources, folder=tmp_path) == "[28.0, 28.0, 28.0] cached 0\n"


# This process compiles nothing while others may.
LEAVE_ALL_TO_OTHERS = """
import sys, time
from pathlib import Path
import many
from partrain.kernels.compiler import processes
from partrain.kernels.compiler.cache import KernelCache
from partrain.system.trusted_directory import TrustedDirectory

processes.available_processors = lambda: 3
kernels = [getattr(many, f"add_{number}") for number in range(8)]
folder = TrustedDirectory.open(Path("kernels"), make=True)
with processes.compile_with_helpers(kernels, "float32", folder, lambda: None):
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
for kernel in kernels:
    KernelCache(folder).load(kernel, "float32")
print("cached", sum(not kernel.was_compiled for kernel in kernels))
"""


def test_other_processes_compile_into_the_cache(many_sources, tmp_path):
    said = run(LEAVE_ALL_TO_OTHERS, "0", sources=many_sources, folder=tmp_path)
    assert said == "begun\ncached 8\n"


def test_other_processes_run_no_file_of_the_current_directory(many_sources, tmp_path):
    make_file = "Path('json.py').write_text('raise ValueError')\n"  # when this process has imported json
    code = LEAVE_ALL_TO_OTHERS.replace("with processes", f"{make_file}with processes")
    assert run(code, "0", sources=many_sources, folder=tmp_path) == "begun\ncached 8\n"


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_other_processes_end_with_this_one(many_sources, tmp_path, number):
    process = start(LEAVE_ALL_TO_OTHERS, "600", sources=many_sources, folder=tmp_path)
    assert process.stdout.readline() == "begun\n"
    others = descendants_of(process.pid)
    assert len(others) == 1
    process.send_signal(number)
    process.communicate(timeout=60)
    wait_until(lambda: not any(is_running(other.pid) for other in others), "that it ends")
