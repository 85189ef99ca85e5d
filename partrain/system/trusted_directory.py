"""Directories of caches: only this user and root can change what is read from them.

What a cache holds is used without further checks, and some of it is machine code. A cache is trusted if each directory
on its path, and each link, belongs to this user or to root and cannot be written by others, as OpenSSH demands of
~/.ssh. A directory with the sticky bit, such as /tmp, may be written by all: there, others cannot replace an entry.
The path is followed once, from the root directory on, and the directory is then held by a descriptor: what happens to
the path afterwards has no effect.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import TracebackType

# The kernel follows as many links in one path.
MAX_LINKS = 40
# Only Linux can open a directory that it may pass through but not list.
_PASS_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class TrustedDirectory:
    """A directory that no other user can change, open until `close` or the end of a `with` block.

    Parameters
    ----------
    path : the directory's path, for messages.
    descriptor : an open descriptor of the directory, which this object closes. `open` gives a checked one.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor

    @classmethod
    def open(cls, path: Path, *, make: bool = False, mode: int = 0o755) -> TrustedDirectory:
        """Open a directory, and check it and all directories above it.

        Parameters
        ----------
        path : the directory; links are followed.
        make : whether to create the directory and those above it if they are missing.
        mode : the permissions of the directory if it is created.

        Raises
        ------
        PermissionError
            Another user could change what is in the directory, or it may not be read.
        OSError
            The directory does not exist and is not to be created, or it cannot be opened or created.
        """
        return cls(path, _open_path(path, mode if make else None))

    @property
    def pinned_path(self) -> Path:
        """A path of this very directory, whatever becomes of `path`; without /proc it is `path`."""
        pinned = Path(f"/proc/self/fd/{self.descriptor}")
        return pinned if pinned.exists() else self.path

    def subdirectory(self, name: str) -> TrustedDirectory:
        """Open a directory in this one; raises as `open`."""
        descriptor = self._open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _require_trusted(os.fstat(descriptor), self.path / name)
        except BaseException:
            os.close(descriptor)
            raise
        return TrustedDirectory(self.path / name, descriptor)

    def require_trusted_file(self, name: str) -> None:
        """Check a file that is read by other means than `read`.

        Raises
        ------
        PermissionError
            Another user could change it, or it is a link.
        OSError
            There is no such file.
        """
        status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise PermissionError(f"{self.path / name} is a link")
        _require_trusted(status, self.path / name)

    def open_file(self, name: str) -> io.BufferedReader:
        """Open a file in the directory for reading.

        Raises
        ------
        PermissionError
            Another user could change the file, or it may not be read.
        OSError
            There is no such file, or it cannot be read.
        """
        file = os.fdopen(self._open(name, os.O_RDONLY | os.O_NONBLOCK), "rb")  # O_NONBLOCK: a pipe would block
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{self.path / name} is not a file")
            _require_trusted(status, self.path / name)
        except BaseException:
            file.close()
            raise
        return file

    def read(self, name: str) -> bytes:
        """Return the content of a file in the directory; raises as `open_file`."""
        with self.open_file(name) as file:
            return file.read()

    def write(self, name: str, *parts: bytes | memoryview, mode: int = 0o644) -> None:
        """Write a file of one or more parts; readers see the complete old or new content. Nothing is synced.

        Raises
        ------
        OSError
            It cannot be written; an existing file is unchanged.
        """
        temporary = f".{name}.{os.getpid()}.tmp"
        try:
            with os.fdopen(self._open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.writelines(parts)
            os.replace(temporary, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            self.remove(temporary)
            raise

    def remove(self, name: str) -> None:
        """Delete a file, if it exists and can be deleted."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self.descriptor)

    @contextlib.contextmanager
    def locked(self, name: str, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of a file in the directory; wait for another process that holds it, after calling `waits`.

        Raises
        ------
        OSError
            The file cannot be created or opened for writing.
        """
        lock = self._open(name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError:
                pass  # some file systems have no locks: then processes may do the same work
            yield
        finally:
            os.close(lock)

    def _open(self, name: str, flags: int, mode: int = 0o777) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.descriptor)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def close(self) -> None:
        """Close the descriptor; no other method may be called afterwards."""
        os.close(self.descriptor)

    def __enter__(self) -> TrustedDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_path(path: Path, mode: int | None) -> int:
    """Return a descriptor of a directory; open and check one component of its path after the other.

    Parameters
    ----------
    path : the directory.
    mode : permissions with which a missing directory is created; None: it is not created.
    """
    names = collections.deque(PurePath(os.path.abspath(path)).parts)
    here, place, num_links = -1, PurePath("/"), 0
    try:
        while names:
            name = names.popleft()
            try:
                entered = os.open(name, _PASS_THROUGH | os.O_NOFOLLOW, dir_fd=None if here < 0 else here)
            except FileNotFoundError:
                if mode is None:
                    raise
                with contextlib.suppress(FileExistsError):  # another process has created it
                    os.mkdir(name, 0o755 if names else mode, dir_fd=here)
                names.appendleft(name)
                continue
            except OSError:
                num_links += 1
                target = _read_link(name, here, place / name)
                if target is None or num_links > MAX_LINKS:
                    raise
                names.extendleft(reversed(PurePath(target).parts))
                continue
            if here >= 0:
                os.close(here)
            here, place = entered, place / name
            _require_trusted(os.fstat(here), place, in_path=bool(names))
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    except OSError as error:
        if error.filename is not None:
            error.filename = str(place / error.filename)  # it was relative to a descriptor
        raise
    finally:
        if here >= 0:
            os.close(here)


def _read_link(name: str, directory: int, place: PurePath) -> str | None:
    """Return the target of a link that only a trusted user can have made; None if it is no link."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return None
    _require_trusted_owner(status, place)
    return os.readlink(name, dir_fd=directory)


def _require_trusted(status: os.stat_result, place: PurePath, *, in_path: bool = False) -> None:
    """Check that no other user can change a file, or an entry of a directory.

    Parameters
    ----------
    status : the status of the file or directory.
    place : its path, for the message.
    in_path : whether a path only leads through it, so that the sticky bit is enough.

    Raises
    ------
    PermissionError
        Another user can.
    """
    _require_trusted_owner(status, place)
    writable_by_others = status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and not _is_group_of_one(status.st_gid)
    )
    if writable_by_others and not (in_path and status.st_mode & stat.S_ISVTX):
        raise PermissionError(
            f"other users may write to {place}: run chmod go-w on it, or choose another XDG_CACHE_HOME"
        )


def _require_trusted_owner(status: os.stat_result, place: PurePath) -> None:
    if status.st_uid not in (0, os.geteuid()) and not _is_unmapped(status.st_uid):
        raise PermissionError(f"{place} belongs to another user: choose another XDG_CACHE_HOME")


def _is_unmapped(user: int) -> bool:
    """Return whether this process runs in a user namespace that does not map the user.

    There, root's directories appear to belong to the overflow user, and so do those of all users outside.
    """
    try:
        if user != int(Path("/proc/sys/kernel/overflowuid").read_text()):
            return False
        ranges = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except (OSError, ValueError):
        return False
    return not any(first <= user < first + count for first, _, count in ranges)


def _is_group_of_one(group: int) -> bool:
    """Return whether a group has no member but this user and root, as where each user has a group of the same name.

    Root gets no such exception: nothing that root runs needs it.
    """
    import grp  # the two modules are loaded only where a directory is writable by its group
    import pwd

    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    is_own = group == 0 or (group == user.pw_gid and entry.gr_name == user.pw_name)
    return os.geteuid() != 0 and is_own and set(entry.gr_mem) <= {user.pw_name, "root"}
