from __future__ import annotations

import os
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
