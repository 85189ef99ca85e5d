"""`notes.jsonl`: what the user has noted about a run, one line of JSON per note, with its time.

Training neither reads nor writes the file, so a note needs no lock. A line is appended with one write.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from partrain.errors import RunError
from partrain.store.run_paths import RunPaths
from partrain.system.durable_files import WITHOUT_LINKS, sync_folder
from partrain.system.memory_limits import read_whole


@dataclass(frozen=True)
class Note:
    """A note.

    Attributes
    ----------
    time : when it was written, in ISO 8601, UTC.
    text : what was noted.
    """

    time: str
    text: str


def append_note(path: Path, text: str) -> None:
    """Append a note with the present time; when this returns, it survives a crash and a power failure.

    Parameters
    ----------
    path : the file; created if it is missing.
    text : the note.

    Raises
    ------
    OSError
        The file cannot be written. No part of the note stays in it.
    """
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": moment, "text": text}).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | WITHOUT_LINKS, 0o666)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line  # a power failure has left half a line
        written = os.write(file, line)
        if written < len(line):
            os.ftruncate(file, os.fstat(file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file)
    finally:
        os.close(file)
    sync_folder(path.parent)


def notes_of(run: RunPaths) -> list[Note]:
    """Return the notes of a run, the oldest first.

    Raises
    ------
    RunError, ResourceError
        They cannot be read, or do not fit into memory.
    """
    try:
        return read_notes(run.notes_path)
    except OSError as error:
        raise RunError(f"{run.notes_path}: cannot be read: {error.strerror}.") from error


def read_notes(path: Path) -> list[Note]:
    """Return the notes in a file, the oldest first; none if it is missing. Lines that are not notes are skipped.

    Raises
    ------
    OSError
        The file cannot be read.
    ResourceError
        It does not fit into memory.
    """
    try:
        lines = read_whole(path, 10, "Check the file.").splitlines()
    except FileNotFoundError:
        return []
    return [note for line in lines if (note := _parse(line)) is not None]


def _parse(line: bytes) -> Note | None:
    try:
        entry = json.loads(line)
        time, text = entry["time"], entry["text"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return Note(time, text) if isinstance(time, str) and isinstance(text, str) else None
