from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.system import trusted_directory
from partrain.system.trusted_directory import TrustedDirectory

SOMEBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory of this user, below another one, with a file."""
    path = tmp_path / "parent" / "cache"
    path.mkdir(parents=True)
    path.chmod(0o755)
    path.parent.chmod(0o755)
    (path / "file").write_bytes(b"content")
    (path / "file").chmod(0o644)
    return path


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)


def test_what_is_written_is_read_and_the_directory_stays_the_same_whatever_happens_to_its_path(path: Path) -> None:
    with TrustedDirectory.open(path) as directory:
        directory.write("new", b"one")
        directory.write("new", b"two")
        os.rename(path, path.with_name("moved"))
        path.mkdir()
        for name in ("file", "new"):
            (path / name).write_bytes(b"of somebody else")
        assert (directory.read("file"), directory.read("new")) == (b"content", b"two")
        assert sorted(os.listdir(directory.pinned_path)) == ["file", "new"]
        directory.remove("file")
        directory.write("third", b"")
    assert set(os.listdir(path.with_name("moved"))) == {"new", "third"}
    assert set(os.listdir(path)) == {"file", "new"}


def test_missing_directories_are_made_if_wanted_and_only_this_user_can_write_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    with pytest.raises(FileNotFoundError) as missing:
        TrustedDirectory.open(path)
    assert missing.value.filename == str(tmp_path / "a")
    old_umask = os.umask(0)
    try:
        for _ in range(2):
            TrustedDirectory.open(path, make=True, mode=0o700).close()
    finally:
        os.umask(old_umask)
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (path, path.parent, path.parent.parent)]
    assert modes == [0o700, 0o755, 0o755]


DANGERS: dict[str, Callable[[Path], object]] = {
    "others can write": lambda path: path.chmod(0o757),
    "the group can write": lambda path: path.chmod(0o775),
    "sticky, but the last one": lambda path: path.chmod(0o1777),
    "others can write to a parent": lambda path: path.parent.chmod(0o757),
    "somebody else's": give_away,
    "somebody else's parent": lambda path: give_away(path.parent),
}


@pytest.mark.parametrize("danger", DANGERS.values(), ids=DANGERS)
def test_directory_that_another_user_could_change_is_refused(path: Path, danger: Callable[[Path], object]) -> None:
    danger(path)
    if os.geteuid() != 0 and path.stat().st_mode & stat.S_IWGRP and not path.stat().st_mode & stat.S_IWOTH:
        pytest.skip("this user may be the only member of the group")
    with pytest.raises(PermissionError, match=r"other users may write to|belongs to another user"):
        TrustedDirectory.open(path)


def test_sticky_parent_is_trusted_as_tmp_is(path: Path) -> None:
    path.parent.chmod(0o1777)
    with TrustedDirectory.open(path) as directory:
        assert directory.read("file") == b"content"


@pytest.mark.parametrize("target", ["absolute", "../parent/cache", "step"])
def test_links_are_followed_and_what_they_lead_through_is_checked(path: Path, target: str) -> None:
    links = path.parent.parent / "links"
    links.mkdir(mode=0o755)
    (links / "step").symlink_to("..")
    (links / "link").symlink_to({"absolute": str(path), "step": "step/parent/cache"}.get(target, target))
    with TrustedDirectory.open(links / "link") as directory:
        assert directory.read("file") == b"content"
    path.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="other users may write"):
        TrustedDirectory.open(links / "link")
    path.parent.chmod(0o755)
    links.chmod(0o777)  # somebody could replace the link
    with pytest.raises(PermissionError, match="other users may write"):
        TrustedDirectory.open(links / "link")


def test_link_of_somebody_else_in_a_sticky_directory_is_refused(path: Path) -> None:
    path.parent.chmod(0o1777)
    (path.parent / "link").symlink_to(path)
    give_away(path.parent / "link")
    with pytest.raises(PermissionError, match="belongs to another user"):
        TrustedDirectory.open(path.parent / "link")


def test_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Not a directory"):
        TrustedDirectory.open(tmp_path / "a", make=True)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


FILES: dict[str, Callable[[Path], object]] = {
    "others can write": lambda path: path.chmod(0o666),
    "somebody else's": give_away,
    "a link": make_link,
    "a pipe": make_pipe,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_file_that_another_user_could_have_written_is_refused(path: Path, change: Callable[[Path], object]) -> None:
    change(path / "file")
    with TrustedDirectory.open(path) as directory:
        for read in (directory.read, directory.require_trusted_file):
            if change is not make_pipe or read == directory.read:
                with pytest.raises(OSError, match=r"cache/file|'file'"):
                    read("file")


def test_subdirectory_is_checked_like_its_parents(path: Path) -> None:
    (path / "sub").mkdir(mode=0o755)
    (path / "sub" / "file").write_bytes(b"below")
    (path / "link").symlink_to("sub")
    with TrustedDirectory.open(path) as directory:
        with directory.subdirectory("sub") as sub:
            assert sub.read("file") == b"below"
        with pytest.raises(OSError, match="link"):
            directory.subdirectory("link")
        (path / "sub").chmod(0o777)
        with pytest.raises(PermissionError, match="other users may write"):
            directory.subdirectory("sub")


def test_failed_write_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    with TrustedDirectory.open(path) as directory:
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            directory.write("file", b"new")
    assert os.listdir(path) == ["file"]
    assert (path / "file").read_bytes() == b"content"


def test_lock_is_waited_for_and_a_file_system_without_locks_is_no_obstacle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations: list[int] = []

    def busy(descriptor: int, operation: int) -> None:
        operations.append(operation)
        if len(operations) == 1:
            raise BlockingIOError(11, "busy")

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(95, "not supported")

    waited: list[bool] = []
    with TrustedDirectory.open(path) as directory:
        monkeypatch.setattr(trusted_directory.fcntl, "flock", busy)
        with directory.locked("lock", lambda: waited.append(True)):
            assert (waited, len(operations)) == ([True], 2)
        monkeypatch.setattr(trusted_directory.fcntl, "flock", unsupported)
        with directory.locked("lock"):
            pass
