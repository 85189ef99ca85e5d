"""The program, run as a user runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.processes import (
    GONE_SECONDS,
    ProcessEntry,
    fork_servers_of,
    list_processes,
    wait_for_the_end_of,
    wait_until,
    workers_of,
)
from tests.program_server import ForkedProgram, program_server

ROOT = Path(__file__).parents[1]

# A run of a few steps may take this long; it takes a few seconds.
RUN_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Result:
    """The exit code of a program, and its output."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def run(self) -> Path:
        """The run's directory: the last line of stdout."""
        assert self.exit_code == 0, self.stderr
        return Path(self.stdout.splitlines()[-1])

    @property
    def refusal(self) -> str:
        """The message of a command that refused to do something."""
        assert self.exit_code == 2, self
        assert "Traceback" not in self.stderr
        assert self.stdout == ""
        assert self.stderr.count("error: ") == 1
        return self.stderr[self.stderr.index("error: ") :]


class PartrainProcess:
    """`python -m partrain` in a session of its own, so that all of its processes can be found.

    It is a fork of the program server, unless an option needs an interpreter of its own.

    Parameters
    ----------
    arguments : the command line after `partrain`.
    folder : the working directory; stdout and stderr are kept there.
    env : variables in addition to those of the test; None removes one.
    code : what to run in place of the program: `python -c code`.
    fresh : start an interpreter, as a user does.
    wrapper : a command that runs the program, such as nohup; implies `fresh`.
    program : in place of `python -m partrain`; implies `fresh`.
    stderr : a file descriptor; implies `fresh`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str | None] | None = None,
        *,
        code: str = "",
        fresh: bool = False,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = (),
        stderr: int | None = None,
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **(env or {})}
        environment = {k: v for k, v in environment.items() if v is not None}
        self._folder = folder
        self._number = len(list(folder.glob("said-*.out")))
        files = [self._file("out"), self._file("err")]
        for file in files:
            file.write_bytes(b"")
        self.popen: subprocess.Popen[bytes] | ForkedProgram
        if fresh or wrapper or program or stderr is not None:
            program = program or [sys.executable, *(["-c", code] if code else ["-m", "partrain"])]
            with open(files[0], "ab") as out, open(files[1], "ab") as err:
                self.popen = subprocess.Popen(
                    [*wrapper, *program, *arguments],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err if stderr is None else stderr,
                    start_new_session=True,
                )
        else:
            self.popen = program_server().start(arguments, folder, environment, files, code)

    def _file(self, kind: str) -> Path:
        return self._folder / f"said-{self._number}.{kind}"

    @property
    def stdout(self) -> str:
        """Its output so far."""
        return self._file("out").read_text()

    @property
    def stderr(self) -> str:
        """Its messages so far."""
        return self._file("err").read_text()

    def processes(self) -> list[ProcessEntry]:
        """Return all of its processes, also those whose parent has ended."""
        return [entry for entry in list_processes() if entry.session == self.popen.pid]

    def fork_servers(self) -> list[int]:
        """Return the process id of its fork server, if it has one."""
        return fork_servers_of(self.popen.pid, self.processes())

    def workers(self) -> list[ProcessEntry]:
        """Return its workers."""
        return workers_of(self.popen.pid, self.processes())

    def wait_for(self, text: str) -> None:
        """Wait until it has written `text` to stderr."""

        def said() -> bool:
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode}:\n{self.stderr}"
            return text in self.stderr

        wait_until(said, f"{text!r} on stderr", RUN_SECONDS)

    def wait_for_training(self) -> Path:
        """Wait until its run in `runs/` has logged a step; return the run's directory."""

        def logged() -> list[Path]:
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode}:\n{self.stderr}"
            return [path for path in self._folder.glob("runs/*/metrics.jsonl") if path.stat().st_size]

        path: Path = wait_until(logged, "a step in the metrics", RUN_SECONDS)[0]
        return path.parent

    def send(self, number: int, *, to_group: bool = False) -> None:
        """Send a signal to the program, or to all processes of its group, as the terminal does."""
        if to_group:
            os.killpg(self.popen.pid, number)
        else:
            self.popen.send_signal(number)

    def wait(self, timeout: float = RUN_SECONDS) -> Result:
        """Wait for its end, and for that of all its processes. A program that hangs prints its tracebacks."""
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGABRT)
            self.popen.wait(GONE_SECONDS)
            pytest.fail(f"it did not end within {timeout:g} s:\n{self.stderr}")
        wait_for_the_end_of(self.processes, "processes of the run")
        return Result(self.popen.returncode, self.stdout, self.stderr)

    def kill(self) -> None:
        """End all of its processes at once, if there are any."""
        for entry in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry.pid, signal.SIGKILL)
        self.popen.wait()


def call_without_numba(*arguments: object) -> int:
    """Run the program in an interpreter of its own; return its exit code; fail if it has imported Numba."""
    program = (
        "import sys; from partrain.interface.command_line import main; code = main(sys.argv[1:]); "
        "found = sorted(name for name in sys.modules if name.split('.')[0] in ('numba', 'llvmlite')); "
        "sys.exit(f'Numba was imported: {found[:3]}' if found else code + 100)"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode >= 100, result.stderr
    return result.returncode - 100
