"""Files of TensorBoard events, made with tensorboardX.

Its SummaryWriter starts a thread and stamps events with the current time, and its RecordWriter syncs the disk whenever
it flushes. So only its messages and checksums are used. A record of a file is its length, the checksum of the length,
the event, and the checksum of the event (tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details").
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.analysis.logged_run import finite, number
from partrain.errors import MissingPackage
from partrain.system.durable_files import WITHOUT_LINKS

if TYPE_CHECKING:
    from tensorboardX.proto.summary_pb2 import Summary

# Fields of a row that locate it; they are not metrics.
LOCATIONS = ("step", "epoch", "examples", "time_s")


def require_tensorboard(purpose: str) -> None:
    """Check that events can be written.

    Raises
    ------
    MissingPackage
        The package tensorboardX is not installed; the message begins with `purpose`.
    """
    try:
        import tensorboardX  # noqa: F401 (imported to see whether that works)
    except ImportError as error:
        raise MissingPackage("tensorboardX", "export", purpose) from error


class EventsFile:
    """A new file of events, open until `close`. Each event is in the file when its method returns.

    Parameters
    ----------
    path : the file, which must not exist.
    started : the start of the run, in seconds since 1970. The time of an event is this plus the `time_s` of its row.

    Raises
    ------
    OSError
        The file cannot be written; each method raises it.
    """

    def __init__(self, path: Path, started: float) -> None:
        self._started, self._time_s, self._size = started, 0.0, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | WITHOUT_LINKS, 0o666)
        try:
            self._write(file_version="brain.Event:2")
        except OSError:
            self.close()
            raise

    def replace_earlier(self) -> None:
        """Let readers that follow the directory drop what they have read from earlier files."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self._write(session_log=SessionLog(status=SessionLog.START))

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Write one scalar per metric of a row."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = {name: value for name, value in row.items() if name not in LOCATIONS and number(value) is not None}
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._time_s = finite(row.get("time_s")) or 0.0
        self._write(step=row["step"], summary=Summary(value=scalars))

    def write_config(self, yaml: str, values: Mapping[str, str | float | bool | None], metrics: list[str]) -> None:
        """Write a configuration as text, and for TensorBoard's table of runs (hparams).

        Parameters
        ----------
        yaml : the configuration.
        values : its values by dotted key.
        metrics : the metrics that the table shows beside them.
        """
        from tensorboardX import summary

        self._write(summary=summary.text("config", f"```yaml\n{yaml}```\n"))
        known = {key: "null" if value is None else value for key, value in values.items()}
        experiment, session_start, _ = summary.hparams(known, dict.fromkeys(metrics, 0.0))
        self._write(summary=experiment)
        self._write(summary=session_start)

    def write_end(self) -> None:
        """Write that the run is complete, for TensorBoard's table of runs."""
        from tensorboardX import summary

        self._write(summary=summary.hparams({}, {})[2])

    def write_picture(self, name: str, step: int, png: bytes) -> None:
        """Write a picture; `png` is the content of a PNG file."""
        from tensorboardX.proto.summary_pb2 import Summary

        width, height = (int.from_bytes(png[start : start + 4]) for start in (16, 20))  # of the header, IHDR
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        """Close the file; no other method must be called afterwards."""
        os.close(self._file)

    def _write(self, *, step: int = 0, **content: Summary | Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        event = Event(wall_time=self._started + self._time_s, step=step, **content).SerializeToString()
        length = struct.pack("<Q", len(event))
        record = length + struct.pack("<I", masked_crc32c(length)) + event + struct.pack("<I", masked_crc32c(event))
        if os.write(self._file, record) < len(record):
            os.ftruncate(self._file, self._size)  # no reader finds half a record
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(record)
