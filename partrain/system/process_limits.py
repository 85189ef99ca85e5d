"""The limits on open files and on processes (`ulimit -n`, `ulimit -u`)."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

from partrain.errors import ResourceError

# Files that the program opens besides: its log and metrics, shared arrays, a checkpoint, pipes of a starting process.
OTHER_FILES = 14

# Processes and threads besides the workers: the coordinator, the fork server, the resource tracker of
# `multiprocessing`, and a thread while a worker starts.
OTHER_PROCESSES = 4


def require_open_files(num_more: int, purpose: str) -> None:
    """Check that this process may open so many more files; raise its soft limit if that is needed and allowed.

    Parameters
    ----------
    num_more : the number of files that will stay open.
    purpose : what needs them; the subject of the message, in the plural.

    Raises
    ------
    ResourceError
        The hard limit is too low.

    Side effects
    ------------
    Raises the soft limit of this process, and so of its future children.
    """
    needed = _num_open_files() + num_more + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ResourceError(
            f"{purpose} need about {needed} open files, but this process may open only {hard}; use fewer workers, or "
            "raise the limit (ulimit -n)"
        )
    with contextlib.suppress(OSError, ValueError):  # macOS has a second limit; the soft limit may yet be enough
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _num_open_files() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return OTHER_FILES


@contextlib.contextmanager
def reporting_process_limit() -> Iterator[None]:
    """Turn the error of the block, which starts processes or threads, into a message if there may not be more.

    Raises
    ------
    ResourceError
        The limit on processes is reached.
    """
    try:
        yield
    except BlockingIOError as error:  # EAGAIN, of fork
        raise too_many_processes() from error
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise too_many_processes() from error


def too_many_processes() -> ResourceError:
    """Return the error for a limit on processes that is reached."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    number = "" if limit == resource.RLIM_INFINITY else f", {limit}"
    return ResourceError(
        f"no process or thread can be started: the limit on them for this user (ulimit -u{number}) or for the control "
        f"group (pids.max) is reached; N workers need about N + {OTHER_PROCESSES} of them. Use fewer workers "
        "(--workers 0 computes in one process), or raise the limit"
    )
