"""The directory of a run: its paths, its birth, its lock, and what `run.json` says of it.

One process writes into a run, the holder of its lock: an flock on `run.lock`, which the system lets go when
the holder dies, however it dies. The file's content, host and process id, is for messages alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from partrain.errors import ConfigError, ResourceError, RunError
from partrain.system.durable_files import make_folders, sweep_temporaries, sync_folder, write_json_durably

RUN_FORMAT = 1

_MAX_NAME_CHARACTERS = 100
_MAX_NAME_BYTES = 200  # a file name has 255: the rest is for time and suffix
# A reader that asks who holds the lock holds it itself for an instant.
_LOCK_PATIENCE_S = 0.2
_LOCK_RETRY_S = 0.005


def validate_run_name(name: str) -> None:
    """Check that `name` can be part of a directory's name and cannot lead out of the runs folder.

    Allowed are letters, marks and digits of any script, `-`, `_`, `.`, `+`, and spaces inside; at most 100
    characters and 200 bytes of UTF-8; no dot at the start.

    Raises
    ------
    ConfigError : says which rule the name breaks.
    """
    shown = repr(name if len(name) <= 40 else name[:40] + "…")
    if not name:
        raise ConfigError("name: is empty. Give the run a name such as mnist.")
    if len(name) > _MAX_NAME_CHARACTERS:
        raise ConfigError(f"name: {shown} has {len(name)} characters. Shorten it to at most {_MAX_NAME_CHARACTERS}.")
    for character in name:
        if unicodedata.category(character)[0] not in "LMN" and character not in "-_.+ ":
            raise ConfigError(
                f"name: {shown} holds {character!r}, which must not be in the name of a run. "
                "Use letters, digits, '-', '_', '.', '+' and spaces."
            )
    if name.startswith("."):
        raise ConfigError(f"name: {shown} starts with a dot. Start it with a letter or a digit.")
    if name != name.strip(" "):
        raise ConfigError(f"name: {shown} starts or ends with a space. Remove it.")
    num_bytes = len(name.encode())
    if num_bytes > _MAX_NAME_BYTES:
        raise ConfigError(f"name: {shown} is {num_bytes} bytes long in UTF-8. At most {_MAX_NAME_BYTES} fit.")


def check_writable(folder: Path) -> None:
    """Check that a directory can be made in `folder`, by making one and removing it.

    Permission bits alone do not tell: root may ignore them, and a read-only file system ignores root.

    Raises
    ------
    ResourceError : it cannot; names the folder, the cause, and what to do.

    Side effects
    ------------
    Makes `folder` if it is missing.
    """
    try:
        make_folders(folder)
        os.rmdir(tempfile.mkdtemp(prefix=".partrain-probe-", dir=folder))
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"{folder}: cannot make a run directory here: {error.strerror}. "
        "Make the folder writable, or choose another one with --runs-dir or --run-dir."
    )


class RunDirectory:
    """A run's directory; made by `create` or `create_at`, found by `open`.

    As a context manager it lets the lock go at the end: `with run.lock(): …`.
    """

    def __init__(self, path: Path, *, created: bool) -> None:
        self.path = path
        self._created = created
        self._lock_file: int | None = None

    @classmethod
    def create(cls, runs_dir: Path, config_name: str, started: datetime) -> RunDirectory:
        """Make `<runs_dir>/<UTC time>-<config_name>`, with a suffix -2, -3, … where that exists.

        Parameters
        ----------
        runs_dir : the folder of all runs; made when missing.
        config_name : the configuration's name.
        started : when the run began, with a time zone.

        Raises
        ------
        ConfigError : the name is not one that `validate_run_name` admits.
        ResourceError : the folder is not writable.
        """
        validate_run_name(config_name)
        stem = f"{started.astimezone(UTC):%Y%m%d-%H%M%S}-{config_name}"
        path = runs_dir / stem
        number = 1
        while True:
            try:
                # mkdir alone decides whose a name is: 16 runs of one second get 16 directories.
                return cls._make(path)
            except FileExistsError:
                number += 1
                path = runs_dir / f"{stem}-{number}"
            except OSError as error:
                raise _unwritable(runs_dir, error) from error

    @classmethod
    def create_at(cls, path: Path) -> RunDirectory:
        """Make the run's directory at exactly this path, and the folders above it where they are missing.

        Raises
        ------
        RunError : something is there already.
        ResourceError : the folder above is not writable.
        """
        try:
            return cls._make(path)
        except FileExistsError as error:
            raise RunError(
                f"{path}: exists already. Choose another --run-dir, or go on with that run: partrain resume."
            ) from error
        except OSError as error:
            raise _unwritable(path.parent, error) from error

    @classmethod
    def _make(cls, path: Path) -> RunDirectory:
        make_folders(path.parent)
        os.mkdir(path)
        run = cls(path, created=True)
        try:
            os.mkdir(run.checkpoints_path)
            sync_folder(path)
            sync_folder(path.parent)
        except BaseException:
            run.discard()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the run that is at `path`.

        Raises
        ------
        RunError : nothing is there, or it is no run.
        """
        if not os.path.isdir(path):
            raise RunError(f"{path}: there is no such run directory. `partrain list` shows the runs.")
        run = cls(path, created=False)
        if not os.path.isfile(run.run_json_path):
            raise RunError(f"{path}: is no run: it has no run.json. `partrain list` shows the runs.")
        return run

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def run_json_path(self) -> Path:
        """What the run is, where it ran, and how it ended."""
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        """The metrics, a line for each logged step and each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """The results of a completed run."""
        return self.path / "summary.json"

    @property
    def train_log_path(self) -> Path:
        """What was said."""
        return self.path / "train.log"

    @property
    def checkpoints_path(self) -> Path:
        """The folder of checkpoints; it is made with the run."""
        return self.path / "checkpoints"

    @property
    def plots_path(self) -> Path:
        """The folder of pictures; whoever writes the first one makes it."""
        return self.path / "plots"

    @property
    def lock_path(self) -> Path:
        """The file whose lock the writing process holds."""
        return self.path / "run.lock"

    def evaluation_path(self, split: str) -> Path:
        """Return where the evaluation on a split is written."""
        return self.path / f"evaluation-{split}.json"

    def discard(self) -> None:
        """Remove the directory if this object created it: for failures before the training begins.

        Side effects
        ------------
        Lets the lock go. The folders above stay, even if they were made for this run.
        """
        self.unlock()
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)  # the failure that led here is what counts

    def lock(self) -> RunDirectory:
        """Take the lock of the one writer; held until `unlock` or the end of this process.

        A program that this process starts does not inherit it: Python opens files close-on-exec.

        Raises
        ------
        RunError : another process holds it; names its host and process id.
        ResourceError : the file system has no locks, or the directory is not writable.

        Side effects
        ------------
        Writes host and process id into the lock file; sweeps what killed processes left in the directory.
        """
        try:
            lock_file = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._wait_for(lock_file)
                holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n"
                os.ftruncate(lock_file, 0)
                os.pwrite(lock_file, holder.encode(), 0)
                sweep_temporaries(self.path)
            except BaseException:
                os.close(lock_file)
                raise
        except OSError as error:
            raise ResourceError(
                f"{self.lock_path}: cannot be locked: {error.strerror}. "
                "Make the run writable, or move it to a file system that has locks."
            ) from error
        self._lock_file = lock_file
        return self

    def _wait_for(self, lock_file: int) -> None:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = _read_holder(lock_file)
                    raise RunError(
                        f"{self.path}: process {holder['pid']} on {holder['host']} is writing into this run. "
                        "Wait until it ends, or stop it."
                    ) from error
            time.sleep(_LOCK_RETRY_S)

    def unlock(self) -> None:
        """Let the lock go, if this object holds it."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()

    def probe_holder(self) -> dict[str, Any] | None:
        """Return `host` and `pid` of the process that holds the lock, or None if it is free.

        Both are None in the instant between a holder's taking the lock and writing them.

        Raises
        ------
        RunError : the lock file exists and cannot be read.
        """
        try:
            lock_file = os.open(self.lock_path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{self.lock_path}: cannot be read: {error.strerror}.") from error
        try:
            # Shared: readers do not stand in each other's way, and need no right to write.
            fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(lock_file)
        finally:
            os.close(lock_file)
        return None

    def status(self) -> str:
        """Return the run's status: that of run.json, but "interrupted" for a run that died while running.

        Raises
        ------
        RunError : run.json is missing, damaged, or of a newer format.
        """
        # In this order: a run that ends in between has written its status before it let the lock go.
        holder = self.probe_holder()
        status = self.read_run_json().get("status")
        if not isinstance(status, str):
            raise RunError(f"{self.run_json_path}: has no status. The file is damaged.")
        return "interrupted" if status == "running" and holder is None else status

    def read_run_json(self) -> dict[str, Any]:
        """Return the content of run.json.

        Raises
        ------
        RunError : the file is missing, damaged, or of a newer format.
        """
        return _read_document(self.run_json_path)

    def write_run_json(self, content: dict[str, Any]) -> None:
        """Replace run.json durably; `format` is added.

        Raises
        ------
        OSError : the disk is full, or an I/O error; the old content stays.
        """
        write_json_durably(self.run_json_path, {"format": RUN_FORMAT} | content)

    def read_summary(self) -> dict[str, Any]:
        """Return the content of summary.json.

        Raises
        ------
        RunError : the file is missing, damaged, or of a newer format.
        """
        return _read_document(self.summary_path)

    def read_evaluation(self, split: str) -> dict[str, Any]:
        """Return the content of the evaluation on a split.

        Raises
        ------
        RunError : the file is missing, damaged, or of a newer format.
        """
        return _read_document(self.evaluation_path(split))

    def write_summary(self, content: dict[str, Any]) -> None:
        """Replace summary.json durably; `format` is added.

        Raises
        ------
        OSError : the disk is full, or an I/O error; the old content stays.
        """
        write_json_durably(self.summary_path, {"format": RUN_FORMAT} | content)

    def write_evaluation(self, split: str, content: dict[str, Any]) -> None:
        """Replace the evaluation on a split durably; `format` is added. Needs no lock: it is no part of the training.

        Raises
        ------
        OSError : the disk is full, or an I/O error; the old content stays.
        """
        write_json_durably(self.evaluation_path(split), {"format": RUN_FORMAT} | content)


@dataclass(frozen=True)
class Place:
    """Where a new run goes: into `runs_dir` under a name of its own, or exactly to `run_dir`."""

    runs_dir: Path
    run_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder that the run's directory is made in."""
        return self.runs_dir if self.run_dir is None else self.run_dir.absolute().parent

    def create(self, name: str) -> RunDirectory:
        """Make the run's directory."""
        if self.run_dir is not None:
            return RunDirectory.create_at(self.run_dir)
        return RunDirectory.create(self.runs_dir, name, datetime.now(UTC))


@contextlib.contextmanager
def writing_into(run: RunDirectory) -> Iterator[None]:
    """Turn a failure to write the files that make a directory a run into a message.

    Raises
    ------
    ResourceError : something could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{run.path}: cannot be written: {error.strerror}") from error


def owner_of(path: Path) -> Path | None:
    """Return the directory of the run that `path` is a file of; None if none needs it.

    Other files may stand in a run's directory: what was exported into it, for example.

    Parameters
    ----------
    path : absolute, with links resolved.
    """
    for folder in path.parents:
        run = RunDirectory(folder, created=False)
        if run.run_json_path.is_file():
            written = (run.config_path, run.run_json_path, run.metrics_path, run.summary_path, run.train_log_path)
            return folder if path in (*written, run.lock_path) or run.checkpoints_path in path.parents else None
    return None


def _read_document(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged, not JSON: {error}.") from error
    document_format = content.get("format") if isinstance(content, dict) else None
    if not isinstance(document_format, int):
        raise RunError(f'{path}: is damaged: it is no JSON object with a number "format".')
    if document_format > RUN_FORMAT:
        raise RunError(
            f"{path}: has format {document_format}, and this partrain knows formats up to {RUN_FORMAT}: "
            "a newer partrain wrote it. Upgrade partrain to use this run."
        )
    assert isinstance(content, dict)
    return content


def _read_holder(lock_file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(lock_file, 4096, 0))
        return {"host": holder["host"], "pid": holder["pid"]}
    except (ValueError, TypeError, LookupError):
        return {"host": None, "pid": None}
