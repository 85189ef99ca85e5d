"""Writes a NumPy file row by row, and its number of rows at the end.

NumPy leaves room in a file's header for a larger number of rows, so the header can be replaced in place.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class NpyWriter:
    """Appends rows of one shape and dtype to a new .npy file.

    A context manager: at its end the file is complete and synced.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self.num_rows = 0
        self._file = open(path, "xb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(self._header())

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows (N, *shape)."""
        assert rows.shape[1:] == self._shape
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.num_rows += len(rows)

    def _header(self) -> bytes:
        header = io.BytesIO()
        description = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                end = self._file.tell()
                header = self._header()
                self._file.seek(0)
                self._file.write(header)
                assert self._file.tell() == len(self._header()) <= end
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
