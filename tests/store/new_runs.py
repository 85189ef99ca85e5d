"""New run directories, and other processes that use them, for tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from partrain.store.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
STARTED = datetime(2026, 11, 23, 17, 15, 2, tzinfo=UTC)
SECONDS_TO_START = 60


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def other_holder(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the run's lock; it is killed at the end."""
    code = (
        "import sys; from pathlib import Path; from partrain.store.run_directory import RunDirectory\n"
        "with RunDirectory.open(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    with python(code, run.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()
