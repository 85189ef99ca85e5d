"""Follows a metrics file that another process writes, perhaps on another machine: reads only what is new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from partrain.store.metrics_log import parse_row
from partrain.system.durable_files import WITHOUT_LINKS

_BLOCK_BYTES = 2**20
# A line is a few hundred bytes long; a longer one is not from a training.
_MAX_LINE_BYTES = 2**20
# The bytes before the position that are compared, so that another file at the same path is noticed.
_TAIL_BYTES = 256


class MetricsFollower:
    """Reads the rows of a metrics file, which may grow, be cut back by a resume, or be missing.

    Parameters
    ----------
    path : the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._tail = b""  # the last bytes before the position

    def was_cut(self) -> bool:
        """Return whether what was read is no longer in the file; then `new_rows` begins again with its first row.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        if self._position == 0:
            return False
        try:
            descriptor = os.open(self.path, os.O_RDONLY | WITHOUT_LINKS)
        except FileNotFoundError:
            there = b""
        else:
            try:
                there = os.pread(descriptor, len(self._tail), self._position - len(self._tail))
            finally:
                os.close(descriptor)
        if there == self._tail:
            return False
        self._position, self._tail = 0, b""
        return True

    def new_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows since the last call; damaged lines, and a last line that is incomplete, are left out.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | WITHOUT_LINKS)
        except FileNotFoundError:
            return
        try:
            while block := os.pread(descriptor, _BLOCK_BYTES, self._position):
                end = block.rfind(b"\n") + 1
                if not end and len(block) < _MAX_LINE_BYTES:
                    return
                whole = block[:end] if end else block
                self._position += len(whole)
                self._tail = (self._tail + whole)[-_TAIL_BYTES:]
                for line in whole.split(b"\n"):
                    if line and (row := parse_row(line)) is not None:
                        yield row
        finally:
            os.close(descriptor)
