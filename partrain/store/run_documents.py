"""Reads and writes the JSON documents of a run: run.json, summary.json and the evaluations. Each has a `format`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from partrain.errors import ResourceError, RunError
from partrain.system.durable_files import write_json_durably
from partrain.system.memory_limits import read_whole

RUN_FORMAT = 1


def read_document(path: Path) -> dict[str, Any]:
    """Return the content of a document.

    Raises
    ------
    RunError
        The file is missing, damaged, or of a newer format.
    """
    try:
        # Python's objects take up to twenty times the size of their JSON.
        content = json.loads(read_whole(path, 20, "Check the file."))
    except ResourceError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged, not JSON: {error}.") from error
    document_format = content.get("format") if isinstance(content, dict) else None
    if not isinstance(document_format, int):
        raise RunError(f'{path}: is damaged: it is not a JSON object with a number "format".')
    if document_format > RUN_FORMAT:
        raise RunError(
            f"{path}: has format {document_format}, and this partrain knows formats up to {RUN_FORMAT}: "
            "a newer partrain wrote it. Upgrade partrain to use this run."
        )
    assert isinstance(content, dict)
    return content


def write_document(path: Path, content: dict[str, Any]) -> None:
    """Replace a document durably; `format` is added.

    Raises
    ------
    OSError
        The disk is full, or an I/O error. The old content stays.
    """
    write_json_durably(path, {"format": RUN_FORMAT} | content)
