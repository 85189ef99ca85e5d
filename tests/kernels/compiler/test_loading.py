from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import partrain
from partrain.kernels import dense, loops
from partrain.kernels.compiler.cache import CACHE_VARIABLE
from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from tests.processes import descendants_of, is_running, wait_until

ROOT = Path(partrain.__file__).parents[1]

TINY_KERNEL = """
from partrain.kernels.compiler.flags import kernel

@kernel("void({float}[::1])")
def double(values):
    for k in range(values.size):
        values[k] *= 2
"""

# Says what was announced and warned of, whether it came from the cache, and what the kernel computes.
USE_TINY_KERNEL = """
import sys
import numpy as np
from partrain.kernels.compiler.loading import load
from tiny import double

def say(kind):
    return lambda text: print(kind, text)

for dtype in sys.argv[1:] or ["float32"]:
    was_not_there = load([double], dtype, announce=say("announced:"), warn=say("warned:"))
    values = np.arange(3, dtype=dtype)
    double(values)
    was_cached = bool(sum(double.stats.cache_hits.values()))
    assert was_cached or was_not_there
    print(values.tolist(), "cached" if was_cached else "compiled")
"""

FRESH = "announced: compiling kernels, first run only\n[0.0, 2.0, 4.0] compiled\n"
CACHED = "[0.0, 2.0, 4.0] cached\n"


def start(code, *arguments, sources, folder, root=ROOT, **variables):
    """Start a Python that finds partrain in `root` and `tiny` in `sources`; its cache is `folder`/cache."""
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE} | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join((str(root), str(sources))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment | variables,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process):
    """Wait for the end of `process`; return what it printed, which must be all of it good."""
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
    return stdout


def run(code, *arguments, **options):
    return output_of(start(code, *arguments, **options))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "tiny.py").write_text(TINY_KERNEL)
    return folder


@pytest.fixture(scope="module")
def good_folder(sources, tmp_path_factory):
    """A folder with a cache that holds the tiny kernel."""
    folder = tmp_path_factory.mktemp("good")
    assert run(USE_TINY_KERNEL, sources=sources, folder=folder) == FRESH
    return folder


@pytest.fixture
def used(good_folder, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(good_folder, tmp_path / "used"))


def kernel_folder(folder):
    """Return the one folder of the cache."""
    (found,) = (folder / "cache" / "partrain" / "kernels").iterdir()
    return found


IMPORT_EVERYTHING = """
import importlib, pkgutil, partrain.kernels
from numba.core.registry import CPUDispatcher
for module in pkgutil.walk_packages(partrain.kernels.__path__, "partrain.kernels."):
    for value in vars(importlib.import_module(module.name)).values():
        if isinstance(value, CPUDispatcher):
            assert not value.signatures
            assert not value.stats.cache_path
import partrain.network.execution, partrain.parallel.workers.worker, partrain.training.coordinator
"""


def test_importing_compiles_nothing_and_leaves_the_cache_alone(sources, tmp_path):
    assert run(IMPORT_EVERYTHING, sources=sources, folder=tmp_path) == ""
    assert list(tmp_path.rglob("*")) == [tmp_path / "tmp"]


def test_the_fork_server_compiles_nothing(tmp_path):
    code = (
        "import partrain.parallel.workers.preload; from partrain.kernels import loops; "
        "print(loops.adam_update.signatures)"
    )
    compiles_nothing = start(
        code, sources=tmp_path, folder=tmp_path,
        PARTRAIN_PRELOAD_KERNELS="loops:float32", PARTRAIN_COORDINATOR=str(os.getpid()),
    )  # fmt: skip
    assert output_of(compiles_nothing) == "[]\n"


def test_a_second_process_takes_the_kernels_from_the_cache(sources, good_folder):
    assert run(USE_TINY_KERNEL, sources=sources, folder=good_folder) == CACHED


def test_the_cache_can_be_put_elsewhere(sources, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    variable = {CACHE_VARIABLE: str(elsewhere)}
    assert run(USE_TINY_KERNEL, sources=sources, folder=tmp_path, **variable) == FRESH
    assert list(elsewhere.glob("**/*.nbi"))
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_for_its_owner_alone(good_folder):
    assert kernel_folder(good_folder).stat().st_mode & 0o077 == 0


def test_the_folder_is_named_by_a_digest_of_all_kernel_sources(tmp_path):
    shutil.copytree(ROOT / "partrain", tmp_path / "partrain", ignore=shutil.ignore_patterns("__pycache__"))
    kernels = tmp_path / "partrain" / "kernels"
    code = "from partrain.kernels.compiler.cache import sources_digest; print(sources_digest())"

    def digest():
        return run(code, sources=tmp_path, folder=tmp_path, root=tmp_path).strip()

    digests = [digest()]
    source = (kernels / "convolution.py").read_text()
    (kernels / "convolution.py").write_text(source + "\n# another comment\n")
    digests.append(digest())
    (kernels / "convolution.py").write_text(source)
    assert digest() == digests[0]
    (kernels / "another.py").write_text("")
    digests.append(digest())
    assert len(set(digests)) == 3
    assert all(name.isalnum() for name in digests)


def make_a_file_of_the_cache(folder):
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("not a folder")


def make_a_file_of_the_kernel_folder(folder):
    target = kernel_folder(folder)
    shutil.rmtree(target)
    target.write_text("not a folder")


def let_the_group_write(folder):
    kernel_folder(folder).chmod(0o770)


def give_it_to_somebody_else(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(kernel_folder(folder), 65534, 65534)


def forbid_writing(folder):
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    kernel_folder(folder).chmod(0o500)


def cache_files(folder, suffix):
    files = list((folder / "cache").glob(f"**/*{suffix}"))
    assert files
    return files


def truncate(suffix):
    def damage(folder):
        for path in cache_files(folder, suffix):
            os.truncate(path, path.stat().st_size // 2)

    return damage


def empty(suffix):
    def damage(folder):
        for path in cache_files(folder, suffix):
            os.truncate(path, 0)

    return damage


def fill_with_garbage(suffix):
    def damage(folder):
        for path in cache_files(folder, suffix):
            path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))

    return damage


def leave_a_hole(suffix):
    """As after a power failure: the file has its size, but a part of it was never written."""

    def damage(folder):
        for path in cache_files(folder, suffix):
            content = path.read_bytes()
            first, last = len(content) // 5, len(content) // 4
            path.write_bytes(content[:first] + bytes(last - first) + content[last:])

    return damage


DAMAGES = {
    "the cache is a file": make_a_file_of_the_cache,
    "the kernel folder is a file": make_a_file_of_the_kernel_folder,
    "the group can write": let_the_group_write,
    "somebody else's": give_it_to_somebody_else,
    "unwritable": forbid_writing,
    "index truncated": truncate(".nbi"),
    "index garbage": fill_with_garbage(".nbi"),
    "code truncated": truncate(".nbc"),
    "code empty": empty(".nbc"),
    "code garbage": fill_with_garbage(".nbc"),
    "code with a hole": leave_a_hole(".nbc"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_unusable_cache_costs_a_warning_and_a_compile(sources, used, damage):
    damage(used)
    *said, result = run(USE_TINY_KERNEL, sources=sources, folder=used).splitlines()
    assert result == "[0.0, 2.0, 4.0] compiled"
    (warning,) = (line for line in said if line.startswith("warned:"))
    assert "the kernel cache" in warning
    assert not list((used / "tmp").iterdir())  # the folder for this run only is gone with it


def test_a_cache_that_cannot_be_made_costs_a_warning_and_a_compile(sources, tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc is where even root cannot make a folder, and Linux alone has it")
    *said, result = run(USE_TINY_KERNEL, sources=sources, folder=tmp_path, XDG_CACHE_HOME="/proc").splitlines()
    assert result == "[0.0, 2.0, 4.0] compiled"
    assert ["warned:" in line for line in said].count(True) == 1


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
print(values.tolist(), "cached", sum(sum(kernel.stats.cache_hits.values()) > 0 for kernel in kernels))
assert not load(kernels, "float32")
"""


@pytest.fixture(scope="module")
def many_sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    (folder / "many.py").write_text(MANY_KERNELS)
    return folder


CLAIMS_ALL = "import json, sys; [open(json.loads(sys.argv[1])['claims'] + f'/{k}', 'x') for k in range(8)]"


@pytest.mark.parametrize(
    "others", ["import os; os._exit(3)", "raise ValueError", CLAIMS_ALL], ids=lambda code: code[:9]
)
def test_what_other_processes_do_not_compile_this_one_does(many_sources, tmp_path, others):
    code = USE_MANY_KERNELS.format(others=repr(others))
    assert run(code, sources=many_sources, folder=tmp_path) == "[28.0, 28.0, 28.0] cached 0\n"


# This process compiles nothing while others may.
LEAVE_ALL_TO_OTHERS = """
import sys, time
from pathlib import Path
import many
from partrain.kernels.compiler import processes
from partrain.kernels.compiler.cache import compile_into_cache

processes.available_processors = lambda: 3
kernels = [getattr(many, f"add_{number}") for number in range(8)]
folder = Path("kernels")
folder.mkdir(exist_ok=True)
with processes.claims_among_compilers(kernels, "float32", folder) as claim:
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
for kernel in kernels:
    compile_into_cache(kernel, "float32", folder)
print("cached", sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
"""


def test_other_processes_compile_into_the_cache(many_sources, tmp_path):
    said = run(LEAVE_ALL_TO_OTHERS, "0", sources=many_sources, folder=tmp_path)
    assert said == "begun\ncached 8\n"


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


def test_a_kernel_that_does_not_compile_is_an_error_and_no_fault_of_the_cache():
    @kernel("void({float}[::1])")
    def broken(values):
        values.no_such_method()

    warnings = []
    with pytest.raises(numba.core.errors.NumbaError):
        load([broken], "float32", warn=warnings.append)
    assert not warnings


@pytest.fixture(scope="session")
def loaded_fast():
    fast = (dense.dense_forward, loops.relu_forward, loops.gather_normalised)
    load(fast, "float32")
    return fast


def test_what_is_loaded_is_not_loaded_again(loaded_fast):
    said = []
    signatures = [k.signatures for k in loaded_fast]
    load(loaded_fast, "float32", announce=said.append, warn=said.append)
    assert [k.signatures for k in loaded_fast] == signatures
    assert not said


GOOD = np.zeros((3, 4), np.float32)
REFUSED = {
    "float64 in a kernel for float32": GOOD.astype(np.float64),
    "integers": GOOD.astype(np.int32),
    "columns before rows": np.asfortranarray(GOOD),
    "every second column": np.zeros((3, 8), np.float32)[:, ::2],
    "another number of dimensions": GOOD.ravel(),
    "a list": GOOD.tolist(),
    "a float": 1.0,
}


@pytest.mark.parametrize("x_ND", REFUSED.values(), ids=REFUSED)
def test_an_argument_of_another_type_or_layout_is_refused(loaded_fast, x_ND):
    w_ED, b_E, y_NE = np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros((3, 2), np.float32)
    dense.dense_forward(GOOD, w_ED, b_E, True, y_NE)
    before = list(dense.dense_forward.signatures)
    with pytest.raises(TypeError):
        dense.dense_forward(x_ND, w_ED, b_E, True, y_NE)
    assert list(dense.dense_forward.signatures) == before


def test_a_read_only_target_is_refused(loaded_fast):
    y = np.zeros(4, np.float32)
    y.flags.writeable = False
    with pytest.raises(TypeError):
        loops.relu_forward(np.zeros(4, np.float32), y)


def test_every_kernel_is_closed_once_it_is_loaded(loaded_fast):
    for k in loaded_fast:
        with pytest.raises(TypeError):
            k(*["not an array"] * len(k.signatures[0]))


def copy_sources(sources, folder):
    folder.mkdir()
    return Path(shutil.copytree(sources, folder / "sources"))


def test_sources_of_another_time_leave_a_sound_cache(sources, tmp_path):
    copied = copy_sources(sources, tmp_path / "copy")
    assert run(USE_TINY_KERNEL, sources=copied, folder=tmp_path) == FRESH
    os.utime(copied / "tiny.py", (1, 1))
    # Whether it is compiled again is up to Numba, whose versions differ in that.
    assert "warned" not in run(USE_TINY_KERNEL, sources=copied, folder=tmp_path)
    assert run(USE_TINY_KERNEL, sources=copied, folder=tmp_path) == CACHED


def test_two_checkouts_share_a_cache_folder_without_harm(sources, tmp_path):
    first, second = (copy_sources(sources, tmp_path / name) for name in ("first", "second"))
    for expected in (FRESH, CACHED):
        assert run(USE_TINY_KERNEL, sources=first, folder=tmp_path) == expected
        assert run(USE_TINY_KERNEL, sources=second, folder=tmp_path) == expected
