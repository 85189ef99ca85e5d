"""The standard streams of the program: a closed one does not stop a command, and stdout can print any character."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO


def prepare_standard_streams() -> None:
    """Open the null device in place of closed standard streams, and let stdout print characters outside its encoding.

    Such a character, and a byte of a path that is not UTF-8, becomes the escape that JSON has for it.

    Side effects
    ------------
    Takes the descriptors of closed streams. Otherwise the next file that is opened would get such a descriptor, and
    whatever a library writes to the stream would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their descriptors
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    codecs.register_error("partrain-json-escape", _json_escape)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="partrain-json-escape")


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a standard stream is a terminal; a closed one is not."""
    return stream is not None and not stream.closed and stream.isatty()


def is_notebook(stream: object) -> bool:
    """Return whether a standard stream is a notebook's: a Jupyter kernel has replaced it."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[k : k + 4]}" for k in range(0, len(units), 4)), error.end
