"""TensorBoard events of a run that is trained: metrics while it trains, configuration, results and pictures.

The events are always a function of metrics.jsonl. A session writes one file, which begins with the events of all
earlier rows, and empties the files of earlier sessions: after a resume no step appears twice, and events that were lost
or not asked for are there again. A reader that follows the directory is at the end of an emptied file, goes on to the
next file, and finds at its start the event that lets it drop what it has read.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from partrain.analysis.export.tensorboard_events import EventsFile, require_tensorboard
from partrain.analysis.logged_run import flatten, is_step
from partrain.config.schema.config import Config
from partrain.errors import RunError
from partrain.store.metrics_log import read_good_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.durable_files import WITHOUT_LINKS, make_folders

# TensorBoard reads files with "tfevents" in their names, in the order of the names.
_FILE = re.compile(r"events\.out\.tfevents\.(\d{10})\.partrain")
# The metrics in TensorBoard's table of runs.
_TABLE = ["validation/accuracy", "validation/loss", "test/accuracy", "test/loss"]

Row = dict[str, Any]


def require_events_package(config: Config) -> None:
    """Check that events can be written, if the configuration asks for them.

    Raises
    ------
    MissingPackage
        The package tensorboardX is not installed.
    """
    if config.logging.tensorboard:
        require_tensorboard("logging.tensorboard")


@contextmanager
def live_events(
    run: RunDirectory, config: Config, warn: Callable[[str], None]
) -> Iterator[Callable[[Row], None] | None]:
    """Write events within the context, and results and pictures at its end; a failure to write is a warning.

    Parameters
    ----------
    run : the run, locked, with the metrics up to the step where the training begins.
    config : its configuration.
    warn : receives a warning.

    Yields
    ------
    A function that writes a row of metrics; None if the configuration does not ask for events.
    """
    if not config.logging.tensorboard:
        yield None
        return
    events = _LiveEvents(run, warn)
    events.begin(config)
    try:
        yield events.write
    finally:
        events.end(with_pictures=config.logging.plots)


class _LiveEvents:
    """The events of one session; after a failure it writes no more."""

    def __init__(self, run: RunDirectory, warn: Callable[[str], None]) -> None:
        self._run, self._warn = run, warn
        self._file: EventsFile | None = None

    def begin(self, config: Config) -> None:
        rows, _ = read_good_metrics(self._run.metrics_path)
        started = datetime.fromisoformat(self._run.read_run_json()["started"]).timestamp()
        with self._giving_up():
            self._file = EventsFile(_start_file(self._run.tensorboard_path), started)
            self._file.replace_earlier()
            self._file.write_config(config.to_yaml(), flatten(config.to_mapping()), _TABLE)
            for row in rows:
                if is_step(row.get("step")):
                    self._file.write_row(row)

    def write(self, row: Row) -> None:
        if self._file is not None:
            with self._giving_up():
                self._file.write_row(row)

    def end(self, *, with_pictures: bool) -> None:
        if self._file is None:
            return
        with self._giving_up():
            if self._run.is_locked and self._run.read_run_json()["status"] == "completed":
                self._write_results(self._file, with_pictures=with_pictures)
            self._file.close()

    def _write_results(self, file: EventsFile, *, with_pictures: bool) -> None:
        summary = self._run.read_summary()
        step, test = summary["steps"], summary["test"] or {}
        values = {f"test/{name}": value for name, value in test.items()}
        file.write_row({"step": step, "time_s": summary["total_seconds"], **values})
        if with_pictures:
            for path in sorted(self._run.plots_path.glob("*.png")):
                file.write_picture(path.stem, step, path.read_bytes())
        file.write_end()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Warn of an error once, and write no more."""
        try:
            yield
        except (OSError, RunError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            self._warn(
                f"{self._run.tensorboard_path}: TensorBoard events cannot be written: {reason}. Training continues "
                "without them. metrics.jsonl has all metrics, and the next resume writes their events"
            )
            file, self._file = self._file, None
            if file is not None:
                file.close()


def _start_file(directory: Path) -> Path:
    """Empty the files of earlier sessions, remove those that were empty before; return the path of the next file."""
    make_folders(directory)
    number = int(time.time())
    for name in os.listdir(directory):
        if match := _FILE.fullmatch(name):
            number = max(number, int(match[1]) + 1)
            _empty_or_remove(directory / name)
    return directory / f"events.out.tfevents.{number:010d}.partrain"


def _empty_or_remove(path: Path) -> None:
    # Not removed at once: TensorBoard fails if the file that it reads is gone.
    if os.lstat(path).st_size == 0:
        os.unlink(path)
        return
    descriptor = os.open(path, os.O_WRONLY | WITHOUT_LINKS)
    try:
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
