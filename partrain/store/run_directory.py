"""The directory of a run: creates it, opens it, locks it, and reads and writes its documents."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from partrain.errors import FailedRun, ResourceError, RunError
from partrain.store.new_directory import delete_abandoned, new_directory
from partrain.store.run_documents import read_document, write_document
from partrain.store.run_lock import PATIENCE_S, RunLock
from partrain.store.run_name import validate_run_name
from partrain.store.run_paths import RUN_FILE, RunPaths
from partrain.store.sweep_paths import is_sweep, trial_name
from partrain.store.unfinished_run import is_unfinished, remove_first_files
from partrain.system.durable_files import make_folders, remedy_for, sweep_temporaries, sync_folder, write_durably
from partrain.system.open_files import find_path, is_at

if TYPE_CHECKING:
    from partrain.store.checkpoint_directory import CheckpointDirectory


class RunLost(FailedRun):
    """The directory of a run in progress was removed, or another process writes into it."""


class RunDirectory(RunPaths):
    """A run's directory. `create` and `create_at` make a new one; `open` returns an existing one.

    As a context manager it releases the lock at the end: `with run.lock(): …`.
    """

    def __init__(self, path: Path, *, created: bool = False, taken_over: bool = False) -> None:
        super().__init__(path)
        self._created, self._taken_over = created or taken_over, taken_over
        self._lock = RunLock(self.lock_path)
        self._directory: int | None = None  # its open descriptor, while it is locked
        self._run_json: dict[str, Any] | None = None  # as this object wrote it last
        self._config: bytes | None = None

    @classmethod
    def create(
        cls, runs_dir: Path, config_name: str, started: datetime, fill: Callable[[RunDirectory], None] | None = None
    ) -> RunDirectory:
        """Create `<runs_dir>/<UTC time>-<config_name>`, with a suffix -2, -3, … if that exists.

        Parameters
        ----------
        runs_dir : the directory of runs; created if it is missing.
        config_name : the configuration's name.
        started : the time when the run began, with a time zone.
        fill : writes the files of a run that is complete at once; it appears with all of them or not at all.

        Raises
        ------
        ConfigError
            `validate_run_name` refuses the name.
        ResourceError
            The directory is not writable, or `fill` raises OSError.
        """
        validate_run_name(config_name)
        stem = f"{started.astimezone(UTC):%Y%m%d-%H%M%S}-{config_name}"
        path = runs_dir / stem
        number = 1
        while True:
            try:
                # Only mkdir decides which process gets a name: 16 runs that start in one second get 16 directories.
                return cls._make(path, fill)
            except FileExistsError:
                number += 1
                path = runs_dir / f"{stem}-{number}"
            except OSError as error:
                raise unwritable(runs_dir, error) from error

    @classmethod
    def create_at(cls, path: Path, fill: Callable[[RunDirectory], None] | None = None) -> RunDirectory:
        """Create the run's directory at exactly this path; missing parents are also created.

        A directory that a run left when it was killed before it began is taken over when it is locked; with `fill`,
        which is as for `create`, it is replaced.

        Raises
        ------
        RunError
            The path exists, and is not such a directory.
        ResourceError
            The parent is not writable, or `fill` raises OSError.
        """
        if fill is not None and is_unfinished(path):
            cls(path, taken_over=True).lock().discard()
        try:
            return cls._make(path, fill)
        except FileExistsError as error:
            if is_unfinished(path):
                return cls(path, taken_over=True)
            raise existing(path) from error
        except OSError as error:
            raise unwritable(path.parent, error) from error

    @classmethod
    def _make(cls, path: Path, fill: Callable[[RunDirectory], None] | None) -> RunDirectory:
        make_folders(path.parent)
        delete_abandoned(path.parent)
        if os.path.lexists(path):
            raise FileExistsError
        # With another name until it contains a directory: at no moment an empty directory has the run's name, which
        # could not be told from a user's. A directory that is not empty cannot be replaced by renaming.
        with new_directory(path.parent) as new:
            try:
                os.mkdir(RunPaths(new).checkpoints_path)
                if fill is not None:
                    fill(cls(new))
                sync_folder(new)
                os.rename(new, path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                    raise FileExistsError from error
                raise
            run = cls(path, created=True)
            try:
                sync_folder(path.parent)
            except BaseException:
                run.discard()
                raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the run at `path`.

        Raises
        ------
        RunError
            There is no directory, or it is not a run.
        """
        if not os.path.isdir(path):
            raise RunError(f"{path}: there is no such run directory. `partrain list` shows the runs.")
        run = cls(path)
        if is_unfinished(path):
            raise RunError(
                f"{path}: a run was killed here before it began. To begin it: partrain resume {path}, or the command "
                "that created it."
            )
        if not os.path.isfile(run.run_json_path):
            if is_sweep(path):
                raise RunError(
                    f"{path}: is a sweep, not a run. Name one of its runs, such as {path / trial_name(1)}; "
                    f"`partrain list {path}` shows them."
                )
            raise RunError(f"{path}: is not a run: it has no {RUN_FILE}. `partrain list` shows the runs.")
        if (special := run.special_file()) is not None:
            raise RunError(f"{special}: is a pipe, a socket or a device, which is not read. Remove it.")
        return run

    @property
    def checkpoints(self) -> CheckpointDirectory:
        """The run's checkpoints."""
        # Brings NumPy, which commands that only find or list runs do not need.
        from partrain.store.checkpoint_directory import CheckpointDirectory

        return CheckpointDirectory(self.checkpoints_path)

    def discard(self) -> None:
        """Remove the directory if this object created it; for failures before the training begins.

        Side effects
        ------------
        Releases the lock. The parents stay, even if they were created for this run.
        """
        self.unlock()
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)  # an error here would hide the failure that led here

    def lock(self, patience_s: float = PATIENCE_S) -> RunDirectory:
        """Take the lock that allows this process to write into the run; it holds until `unlock`.

        Parameters
        ----------
        patience_s : how long to wait until another process releases it.

        Raises
        ------
        RunError, ResourceError
            As `RunLock.acquire`.

        Side effects
        ------------
        Removes the temporary files that killed processes left in the directory, and the first files of a run that was
        killed before it began.
        """
        try:
            self._lock.acquire(patience_s)
            if self._taken_over and os.path.lexists(self.run_json_path):
                raise existing(self.path)
        except RunError:  # another process has taken the directory over
            self._created = False
            self.unlock()
            raise
        try:
            with reporting_write_errors(self):
                self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
                sweep_temporaries(self.path)
                if self._taken_over:
                    remove_first_files(self.path)
        except BaseException:
            self.unlock()
            raise
        return self

    def unlock(self) -> None:
        """Release the lock if this object holds it."""
        self._lock.release()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    @property
    def is_locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._directory is not None

    @property
    def is_in_place(self) -> bool:
        """Whether the locked directory and its lock file are where they were; if not, see `follow`."""
        return self._lock.is_at(self.lock_path)

    def follow(self) -> bool:
        """Look where the locked directory is; if it was moved, change `path`. Return whether it was moved.

        Raises
        ------
        RunLost
            It was removed; or its lock file was, and now another process has locked it.

        Side effects
        ------------
        Locks a new lock file if the locked one was removed. Releases the lock before it raises.
        """
        assert self._directory is not None
        if self.is_in_place:
            return False
        was_moved = not is_at(self.path, self._directory)
        if was_moved:
            found = find_path(self._directory)
            if found is None:
                self.unlock()
                raise RunLost(
                    f"{self.path}: this directory is gone: it was removed during the training, or moved to another "
                    "file system. The training ends, and nothing more is saved."
                )
            self.path = found
        try:
            self._lock.move_to(self.lock_path)
        except (RunError, ResourceError) as error:
            self.unlock()
            raise RunLost(
                f"{error} The lock file was removed during this training, which ends; nothing more is saved."
            ) from error
        return was_moved

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()

    def lock_holder(self) -> dict[str, Any] | None:
        """Return `host` and `pid` of the process that writes into the run; None if there is none.

        Raises
        ------
        RunError
            As `RunLock.holder`.
        """
        return self._lock.holder()

    def status(self) -> str:
        """Return the status in run.json, except "interrupted" if it says "running" and no process holds the lock.

        Raises
        ------
        RunError
            run.json is missing, damaged, or of a newer format.
        """
        # In this order: a run that ends in between writes its status before it releases the lock.
        holder = self.lock_holder()
        status = self.read_run_json().get("status")
        if not isinstance(status, str):
            raise RunError(f"{self.run_json_path}: has no status. The file is damaged.")
        return "interrupted" if status == "running" and holder is None else status

    def read_run_json(self) -> dict[str, Any]:
        """Return the content of run.json; raises RunError as `read_document`."""
        return read_document(self.run_json_path)

    def write_run_json(self, content: dict[str, Any]) -> None:
        """Replace run.json durably; raises OSError as `write_document`."""
        write_document(self.run_json_path, content)
        self._run_json = content

    def write_config(self, yaml: str) -> None:
        """Replace config.yaml durably; raises OSError as `write_durably`."""
        content = yaml.encode()
        write_durably(self.config_path, content)
        self._config = content

    def restore_documents(self) -> list[Path]:
        """Write run.json and config.yaml again if they were removed since this object wrote them. Return which were.

        Raises
        ------
        OSError
            As `write_durably`.
        """
        restored = []
        if self._config is not None and not os.path.lexists(self.config_path):
            self.write_config(self._config.decode())
            restored.append(self.config_path)
        if self._run_json is not None and not os.path.lexists(self.run_json_path):
            self.write_run_json(self._run_json)
            restored.append(self.run_json_path)
        return restored

    def read_summary(self) -> dict[str, Any]:
        """Return the content of summary.json; raises RunError as `read_document`."""
        return read_document(self.summary_path)

    def write_summary(self, content: dict[str, Any]) -> None:
        """Replace summary.json durably; raises OSError as `write_document`."""
        write_document(self.summary_path, content)

    def read_evaluation(self, split: str) -> dict[str, Any]:
        """Return the content of the evaluation on a split; raises RunError as `read_document`."""
        return read_document(self.evaluation_path(split))

    def write_evaluation(self, split: str, content: dict[str, Any]) -> None:
        """Replace the evaluation on a split durably; raises OSError as `write_document`.

        Needs no lock, because training never reads or writes it.
        """
        write_document(self.evaluation_path(split), content)


def existing(path: Path) -> RunError:
    """Return the error for a new run whose path exists."""
    if os.path.lexists(RunPaths(path).run_json_path):
        return RunError(f"{path}: exists already. Choose another directory, or go on with that run: partrain resume.")
    return RunError(f"{path}: exists already, and is not a run. Choose another directory, or remove it.")


def unwritable(directory: Path, error: OSError) -> ResourceError:
    """Return the error for a directory in which no run can be created."""
    return ResourceError(
        f"{directory}: cannot create a run directory here: {error.strerror}. "
        f"{remedy_for(error)}, or choose another directory with --runs-dir or --run-dir."
    )


@contextlib.contextmanager
def reporting_write_errors(run: RunDirectory) -> Iterator[None]:
    """Turn an OSError of the block, which writes the files of a run, into a message.

    Raises
    ------
    ResourceError
        A file could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{run.path}: cannot be written: {error.strerror}. {remedy_for(error)}.") from error
