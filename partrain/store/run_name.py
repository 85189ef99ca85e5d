"""The rules for the name of a run."""

from __future__ import annotations

import os
import sys
import unicodedata

from partrain.errors import ConfigError

_MAX_CHARACTERS = 100
_MAX_BYTES = 200  # a file name has at most 255 bytes; the rest is for the time and a suffix


def validate_run_name(name: str) -> None:
    """Check that `name` can be part of a directory's name and cannot lead out of the directory of runs.

    A name consists of letters, marks and digits of any script, `-`, `_`, `.`, `+`, and spaces inside; it has at most
    100 characters and 200 bytes of UTF-8, and does not start with a dot. The encoding
    of file names must have its characters.

    Raises
    ------
    ConfigError
        The name breaks a rule; the message says which.
    """
    shown = repr(name if len(name) <= 40 else name[:40] + "…")
    if not name:
        raise ConfigError("name: is empty. Give the run a name such as mnist.")
    if len(name) > _MAX_CHARACTERS:
        raise ConfigError(f"name: {shown} has {len(name)} characters. Shorten it to at most {_MAX_CHARACTERS}.")
    for character in name:
        if unicodedata.category(character)[0] not in "LMN" and character not in "-_.+ ":
            raise ConfigError(
                f"name: {shown} contains {character!r}, which is not allowed in the name of a run. "
                "Use letters, digits, '-', '_', '.', '+' and spaces."
            )
    if name.startswith("."):
        raise ConfigError(f"name: {shown} starts with a dot. Start it with a letter or a digit.")
    if name != name.strip(" "):
        raise ConfigError(f"name: {shown} starts or ends with a space. Remove it.")
    num_bytes = len(name.encode())
    if num_bytes > _MAX_BYTES:
        raise ConfigError(f"name: {shown} has {num_bytes} bytes in UTF-8. Shorten it to at most {_MAX_BYTES}.")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ConfigError(
            f"name: {shown} has characters that file names cannot have in this locale (encoding {encoding}). "
            "Set PYTHONUTF8=1, or use ASCII letters."
        ) from None
