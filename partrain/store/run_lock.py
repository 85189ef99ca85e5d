"""The lock of a run or a sweep: at most one process writes into its directory.

The lock is an `flock` on a file such as `run.lock`. The kernel releases it when its holder ends, however it ends. The
file's content, host and process id, serves only for messages.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from partrain.errors import ResourceError, RunError
from partrain.system.durable_files import WITHOUT_LINKS, remedy_for
from partrain.system.open_files import is_at

# A reader that asks who holds the lock holds it itself for an instant; so an attempt is repeated for a while.
PATIENCE_S = 0.2
_RETRY_S = 0.005

# The errors of `flock` on a file system without locks, such as Lustre mounted without the option flock.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})


class RunLock:
    """The lock on one directory.

    Parameters
    ----------
    path : the lock file, in the directory.
    kind : what the directory is, for messages.
    """

    def __init__(self, path: Path, kind: str = "run") -> None:
        self._path, self._kind = path, kind
        self._file: int | None = None

    def acquire(self, patience_s: float = PATIENCE_S) -> None:
        """Take the lock; this process holds it until `release` or until it ends.

        Programs that this process starts do not inherit the lock, because Python opens files close-on-exec.

        Parameters
        ----------
        patience_s : how long to wait until another holder releases it.

        Raises
        ------
        RunError
            Another process holds it; the message names its host and process id.
        ResourceError
            The file system has no locks, the disk is full, or the directory is not writable.

        Side effects
        ------------
        Writes host and process id into the lock file.
        """
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | WITHOUT_LINKS, 0o666)
            try:
                self._lock_exclusively(file, patience_s)
                holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n"
                os.ftruncate(file, 0)
                os.pwrite(file, holder.encode(), 0)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise ResourceError(_describe(self._path, error)) from error
        self._file = file

    def _lock_exclusively(self, file: int, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = _read_holder(file)
                    raise RunError(
                        f"{self._path.parent}: process {holder['pid']} on {holder['host']} is writing into this "
                        f"{self._kind}. Wait until it ends, or stop it."
                    ) from error
            time.sleep(_RETRY_S)

    def is_at(self, path: Path) -> bool:
        """Return whether the locked file is still at `path`."""
        return self._file is not None and is_at(path, self._file)

    def move_to(self, path: Path) -> None:
        """Hold the lock at `path`: where the lock file is now, or else in a new file.

        Raises
        ------
        RunError, ResourceError
            As `acquire`.
        """
        self._path = path
        if not self.is_at(path):
            self.release()
            self.acquire()

    def release(self) -> None:
        """Release the lock if this object holds it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def holder(self) -> dict[str, Any] | None:
        """Return `host` and `pid` of the process that holds the lock; None if the lock is free.

        Both are None in the instant after a process has taken the lock and before it has written them. Where the file
        system has no locks, the answer is the process that would hold it, which may have ended.

        Raises
        ------
        RunError
            The lock file exists and cannot be read.
        """
        try:
            file = os.open(self._path, os.O_RDONLY | WITHOUT_LINKS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{self._path}: cannot be read: {error.strerror}.") from error
        try:
            # A shared lock: readers do not exclude each other, and need no permission to write.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(file)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return _read_holder(file)
            raise RunError(f"{self._path}: cannot be read: {error.strerror}.") from error
        finally:
            os.close(file)
        return None


def _describe(path: Path, error: OSError) -> str:
    """Return the message for a lock that cannot be taken."""
    if error.errno in _NO_LOCKS:
        remedy = "Use a directory on a file system that has locks; without one, two processes could write into the run."
        return f"{path}: cannot be locked: {error.strerror}. {remedy}"
    return f"{path}: cannot be locked: {error.strerror}. {remedy_for(error)}."


def _read_holder(file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return {"host": holder["host"], "pid": holder["pid"]}
    except (ValueError, TypeError, LookupError):
        return {"host": None, "pid": None}
