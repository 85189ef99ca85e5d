"""Downloads files from public mirrors: a file appears verified or not at all, and every wait has a time-out."""

from __future__ import annotations

import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.errors import DataError
from partrain.system.process_limits import reporting_process_limit
from partrain.system.standard_streams import is_terminal
from partrain.system.work_progress import progress_bar

if TYPE_CHECKING:  # its import takes 25 ms, and few commands download anything
    import http.client

# Time-outs of each read, and of everything before the first byte: the name look-up and all addresses of the name, each
# of which gets a time-out of its own from urllib.
READ_TIMEOUT_S = 8.0
OPEN_TIMEOUT_S = 12.0
# A slower mirror, on average after READ_TIMEOUT_S, is abandoned.
MIN_BYTES_PER_SECOND = 20_000


def fetch_from_mirrors(
    mirrors: list[str],
    tried: list[str],
    path: Path,
    check: Callable[[Path], object],
    *,
    max_bytes: int,
    say: Callable[[str], None],
) -> str | None:
    """Fetch a file from the first mirror that has it.

    Parameters
    ----------
    mirrors : URLs of directories, in the order in which they are tried. A mirror that fails is removed, and added to
        `tried` with the reason, so that the next file does not wait for it again.
    tried : the places that were tried; appended to.
    path : the destination; the file has the same name on the mirrors.
    check : raises a DataError if a file is not the right one.
    max_bytes : the size limit.
    say : called with a line for each attempt.

    Returns
    -------
    The mirror that provided the file; None if there is none.
    """
    import http.client
    import urllib.error

    while mirrors:
        address = f"{mirrors[0]}{path.name}"
        say(f"fetching {address}")
        try:
            _download(address, path, check, max_bytes)
            return mirrors[0]
        except (OSError, http.client.HTTPException, ValueError, DataError) as error:
            # ValueError: a redirect to an invalid URL.
            reason: object = error
            if isinstance(error, urllib.error.URLError):
                reason = error.reason  # without "<urlopen error ...>" around it
            elif isinstance(error, http.client.HTTPException):
                reason = repr(error)  # quotes the server, so it may contain any characters
            tried.append(f"{address}: {reason!s:.200}")
            del mirrors[0]
    return None


def _download(address: str, path: Path, check: Callable[[Path], object], max_bytes: int) -> None:
    with _open_address(address) as response:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not from tempfile, whose files other users cannot read.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            num_bytes = _receive(response, temporary, path.name, max_bytes)
            try:
                check(temporary)
            except DataError:
                raise DataError(f"sent {num_bytes:,} bytes that are not the right file") from None
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _receive(response: http.client.HTTPResponse, path: Path, description: str, max_bytes: int) -> int:
    with (
        open(path, "xb") as file,
        progress_bar(
            total=response.length,
            desc=description,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not is_terminal(sys.stderr),
        ) as progress,
    ):
        start = time.monotonic()
        num_bytes = 0
        # read1, because read would wait for many packets, each of which resets the time-out.
        while chunk := response.read1(64 * 1024):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise DataError(f"sent more than {max_bytes:,} bytes")
            if time.monotonic() - start > READ_TIMEOUT_S + num_bytes / MIN_BYTES_PER_SECOND:
                raise DataError(f"is slower than {MIN_BYTES_PER_SECOND:,} bytes per second")
            file.write(chunk)
            progress.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return num_bytes


def _open_address(address: str) -> http.client.HTTPResponse:
    """Open a URL within OPEN_TIMEOUT_S.

    A separate thread opens it, because name look-up has no time-out, and because urllib applies its time-out to each
    address of the name: if a firewall drops packets, that takes minutes.
    """
    import urllib.error
    import urllib.request

    outcome: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            outcome.put(urllib.request.urlopen(address, timeout=READ_TIMEOUT_S))
        except urllib.error.HTTPError as error:
            error.close()
            outcome.put(OSError(f"HTTP status {error.code}"))
        except Exception as error:
            outcome.put(error)

    with reporting_process_limit():
        threading.Thread(target=attempt, daemon=True).start()
    try:
        response = outcome.get(timeout=OPEN_TIMEOUT_S)
    except queue.Empty:
        raise TimeoutError(f"no answer within {OPEN_TIMEOUT_S:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response
