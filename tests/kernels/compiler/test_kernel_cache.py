from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.compiler.tiny_kernel import (
    CACHED,
    FRESH,
    ROOT,
    USE_TINY_KERNEL,
    kernel_folder,
    run,
)


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


def cache_files(folder):
    files = list((folder / "cache").glob("**/*.kernel"))
    assert files
    return files


def truncate(folder):
    for path in cache_files(folder):
        os.truncate(path, path.stat().st_size // 2)


def empty(folder):
    for path in cache_files(folder):
        os.truncate(path, 0)


def fill_with_garbage(folder):
    for path in cache_files(folder):
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def write_another_pickle(folder):
    """As if a later version had written it: its digest is right, but this version cannot use it."""
    payload = pickle.dumps(("machine code", "of another version"))
    for path in cache_files(folder):
        path.write_bytes(hashlib.sha256(payload).digest() + payload)


def leave_a_hole(folder):
    """As after a power failure: the file has its size, but a part of it was never written."""
    for path in cache_files(folder):
        content = path.read_bytes()
        first, last = len(content) // 5, len(content) // 4
        path.write_bytes(content[:first] + bytes(last - first) + content[last:])


def let_the_group_write_a_file(folder):
    for path in cache_files(folder):
        path.chmod(0o660)


def let_others_write_a_parent(folder):
    (folder / "cache" / "partrain").chmod(0o777)


def give_a_parent_to_somebody_else(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(folder / "cache", 65534, 65534)


DAMAGES = {
    "the cache is a file": make_a_file_of_the_cache,
    "the kernel folder is a file": make_a_file_of_the_kernel_folder,
    "the group can write": let_the_group_write,
    "somebody else's": give_it_to_somebody_else,
    "others can write to a parent": let_others_write_a_parent,
    "somebody else's parent": give_a_parent_to_somebody_else,
    "the group can write to a file": let_the_group_write_a_file,
    "code truncated": truncate,
    "code empty": empty,
    "code garbage": fill_with_garbage,
    "code with a hole": leave_a_hole,
    "code of another version": write_another_pickle,
}


@pytest.mark.slow
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


def copy_sources(sources, folder):
    folder.mkdir()
    return Path(shutil.copytree(sources, folder / "sources"))


def test_sources_of_another_time_leave_a_sound_cache(sources, tmp_path):
    copied = copy_sources(sources, tmp_path / "copy")
    assert run(USE_TINY_KERNEL, sources=copied, folder=tmp_path) == FRESH
    os.utime(copied / "tiny.py", (1, 1))
    assert run(USE_TINY_KERNEL, sources=copied, folder=tmp_path) == CACHED


@pytest.mark.slow
def test_equal_checkouts_share_their_kernels_and_different_ones_do_not(sources, tmp_path):
    first, equal, other = (copy_sources(sources, tmp_path / name) for name in ("first", "equal", "other"))
    (other / "tiny.py").write_text((sources / "tiny.py").read_text().replace("*= 2", "*= 3"))
    assert run(USE_TINY_KERNEL, sources=first, folder=tmp_path) == FRESH
    assert run(USE_TINY_KERNEL, sources=equal, folder=tmp_path) == CACHED
    assert run(USE_TINY_KERNEL, sources=other, folder=tmp_path) == FRESH.replace("2.0, 4.0", "3.0, 6.0")
    assert run(USE_TINY_KERNEL, sources=first, folder=tmp_path) == CACHED


@pytest.mark.slow
def test_an_optimising_interpreter_has_a_cache_of_its_own_and_harms_no_other(sources, used):
    assert run(USE_TINY_KERNEL, sources=sources, folder=used, PYTHONOPTIMIZE="2") == FRESH
    assert run(USE_TINY_KERNEL, sources=sources, folder=used) == CACHED


def test_settings_of_numba_that_change_machine_code_change_the_digest(sources, tmp_path):
    code = "from partrain.kernels.compiler.cache import sources_digest; print(sources_digest())"
    settings = ({}, {"NUMBA_OPT": "1"}, {"NUMBA_LOOP_VECTORIZE": "0"})
    assert len({run(code, sources=sources, folder=tmp_path, **setting) for setting in settings}) == 3


# Opening a file for writing fails, as on a read-only file system, where even root cannot write.
ON_A_READ_ONLY_FILE_SYSTEM = """
import errno, os
really_open = os.open
def open_read_only(path, flags, *arguments, **named):
    if flags & (os.O_WRONLY | os.O_RDWR) and not str(path).startswith((os.environ["TMPDIR"], ".double")):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    return really_open(path, flags, *arguments, **named)
os.open = open_read_only
"""


def test_a_warm_cache_is_used_where_it_cannot_be_written(sources, used):
    assert run(ON_A_READ_ONLY_FILE_SYSTEM + USE_TINY_KERNEL, sources=sources, folder=used) == CACHED


USE_TWO_KERNELS = """
import subprocess, sys
from partrain.kernels.compiler.loading import are_cached, load
from partrain.kernels.compiler.flags import kernel
from tiny import double
from other import double as other

assert load([double, other], "float32", warn=lambda text: print("warned:", text))
print([k.was_compiled for k in (double, other)])
code = "from other import *; import tiny; print(are_cached([double, tiny.double], 'float32'))"
subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_children_find_all_kernels_if_some_are_in_a_cache_that_cannot_be_written(sources, used):
    source = (sources / "tiny.py").read_text()
    (used / "other.py").write_text("from partrain.kernels.compiler.loading import are_cached\n" + source)
    warning, were_compiled, are_cached = run(
        ON_A_READ_ONLY_FILE_SYSTEM + USE_TWO_KERNELS, sources=f"{sources}:{used}", folder=used
    ).splitlines()
    assert warning.startswith("warned: the kernel cache cannot be used ([Errno 30] Read-only file system")
    assert (were_compiled, are_cached) == ("[False, True]", "True")
    assert not list((used / "tmp").iterdir())
