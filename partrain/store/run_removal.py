"""Removes runs and sweeps: never one that is being written, and nothing else in the directory of runs."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from partrain.errors import ResourceError, RunError
from partrain.store.run_lock import RunLock
from partrain.store.run_paths import RunPaths
from partrain.store.sweep_paths import SWEEP_FILES, SWEEP_LOCK_FILE, is_sweep, is_trial_name
from partrain.store.unfinished_run import is_unfinished
from partrain.system.durable_files import remedy_for, sync_folder
from partrain.system.fault_injection import kill_point
from partrain.system.locked_directory import delete_unlocked, locked_against_deletion

# With a dot: `partrain list` does not show what is left of a run whose removal was killed.
_REMOVED_PREFIX = ".partrain-removed-"
_REMOVED_NAME = re.compile(re.escape(_REMOVED_PREFIX) + "[0-9a-f]{8}")


@dataclass(frozen=True)
class RemovableRun:
    """A run, or a sweep with its runs, that may be removed.

    Attributes
    ----------
    path : its directory, in the directory of runs.
    num_bytes : the space that its files take on the disk.
    other_files : files in it that partrain has not written, relative to it.
    """

    path: Path
    num_bytes: int
    other_files: tuple[Path, ...]


def find_removable(path: Path, runs_dir: Path) -> RemovableRun:
    """Return the run or sweep at `path`, after checking that it may be removed; those that are damaged may be.

    Raises
    ------
    RunError
        It is neither a run nor a sweep, a link, not in `runs_dir` itself, or being written.
    ResourceError
        It cannot be read.
    """
    if path.is_symlink():
        raise RunError(f"{path}: is a link to {os.readlink(path)}. Remove the link with rm, or name the run itself.")
    real = Path(os.path.realpath(path))
    if real.parent != Path(os.path.realpath(runs_dir)):
        raise RunError(
            f"{path}: is not in the directory of runs, {runs_dir}. To remove a run that is elsewhere: "
            f"--runs-dir {real.parent}"
        )
    if not (RunPaths(real).run_json_path.is_file() or is_unfinished(real) or is_sweep(real)):
        raise RunError(f"{path}: is not a run, and is not removed. `partrain list` shows the runs.")
    _refuse_if_written(path)
    num_bytes, other_files = 0, []

    def fail(error: OSError) -> None:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}. {remedy_for(error)}.") from error

    for folder, folders, files in os.walk(real, onerror=fail):
        for name in (*folders, *files):
            file = Path(folder, name)
            try:
                status = file.lstat()
            except FileNotFoundError:  # a temporary file
                continue
            num_bytes += status.st_blocks * 512
            if name in files and not _is_own_file(real, file):
                other_files.append(file.relative_to(real))
    return RemovableRun(path, num_bytes, tuple(sorted(other_files)))


def _is_own_file(directory: Path, file: Path) -> bool:
    """Return whether partrain writes this file, in the directory of a run or of a sweep."""
    if not is_sweep(directory):
        return RunPaths(directory).is_run_file(file)
    first, *rest = file.relative_to(directory).parts
    return RunPaths(directory / first).is_run_file(file) if rest else first in SWEEP_FILES


def _locks_of(path: Path) -> list[RunLock]:
    """Return the lock of a run; of a sweep, its lock and those of its runs."""
    if not is_sweep(path):
        return [RunLock(RunPaths(path).lock_path)]
    trials = [path / name for name in sorted(os.listdir(path)) if is_trial_name(name)]
    return [RunLock(path / SWEEP_LOCK_FILE, "sweep"), *(RunLock(RunPaths(trial).lock_path) for trial in trials)]


def _refuse_if_written(path: Path) -> None:
    for lock in _locks_of(path):
        holder = lock.holder()
        if holder is not None:
            raise RunError(
                f"{path}: process {holder['pid']} on {holder['host']} is writing into this "
                f"{'sweep' if is_sweep(path) else 'run'}. Wait until it ends, or stop it."
            )


def complete_removals(runs_dir: Path) -> None:
    """Delete what is left of runs whose removal was killed, as far as that is possible."""
    delete_unlocked(runs_dir, _REMOVED_NAME)


def remove(run: RemovableRun) -> None:
    """Remove a run or a sweep. It disappears at once: whoever looks sees the whole run, or none. Targets of links stay.

    If this process is killed meanwhile, `complete_removals` deletes the rest.

    Raises
    ------
    RunError
        A process has begun to write into it.
    ResourceError
        The directory is not writable; the message names what is left.
    """
    complete_removals(run.path.parent)
    removed = run.path.with_name(f"{_REMOVED_PREFIX}{secrets.token_hex(4)}")
    with contextlib.ExitStack() as at_end:
        for lock in _locks_of(run.path):
            lock.acquire()
            at_end.callback(lock.release)
        at_end.enter_context(locked_against_deletion(run.path))
        try:
            os.rename(run.path, removed)
        except OSError as error:
            raise ResourceError(f"{run.path}: cannot be removed: {error.strerror}. {remedy_for(error)}.") from error
        kill_point("run renamed for removal")
        try:
            sync_folder(run.path.parent)
            shutil.rmtree(removed)
        except OSError as error:
            raise ResourceError(
                f"{run.path}: could not be removed completely: {error.strerror}. The rest is in {removed}."
            ) from error
