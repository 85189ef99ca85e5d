"""`train.log`: the messages of a run, one per line, with the time."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from partrain.system.durable_files import WITHOUT_LINKS


class TrainingLog:
    """The log of one run, open for appending until `close`.

    Parameters
    ----------
    path : the file; created if it is missing, otherwise continued.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | WITHOUT_LINKS, 0o666)

    def write(self, line: str) -> None:
        """Append `line`, preceded by the time in UTC.

        If the disk is full, the line is lost and training continues.
        """
        entry = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n"
        with contextlib.suppress(OSError):
            os.write(self._file, entry.encode("utf-8", errors="backslashreplace"))

    def close(self) -> None:
        """Close the file; `write` must not be called afterwards."""
        os.close(self._file)
