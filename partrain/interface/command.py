"""A command of the program, and the context in which it runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.errors import ResourceError
from partrain.store.run_lookup import find_run, runs_directory
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.system.standard_streams import is_terminal
from partrain.system.terminal_text import printable_lines

if TYPE_CHECKING:
    from partrain.store.run_location import RunLocation


@dataclass(frozen=True)
class CommandContext:
    """The context in which a command runs.

    Attributes
    ----------
    options : the parsed command line.
    command_line : the command line as it was typed, starting with "partrain"; runs record it.
    messages : messages to the user, on stderr.
    interruption : the signals that end the command.
    build_parser : returns the parser of the whole command line.
    """

    options: argparse.Namespace
    command_line: Sequence[str]
    messages: Messages
    interruption: Interruption
    build_parser: Callable[[], argparse.ArgumentParser]

    @property
    def num_workers(self) -> int:
        """The value of `--workers`; by default the number of usable processors."""
        workers: int | None = self.options.workers
        return available_processors() if workers is None else workers

    @property
    def runs_dir(self) -> Path:
        """The directory of runs: the value of `--runs-dir`, or the default."""
        return runs_directory(self.options.runs_dir)

    def find_run(self) -> Path:
        """Return the directory of the run that the argument RUN names.

        Raises
        ------
        RunError
            There is no such run.
        """
        return find_run(self.options.run, self.runs_dir)

    def new_run_location(self) -> RunLocation:
        """Return where the options `--runs-dir` and `--run-dir` place a new run."""
        from partrain.store.run_location import RunLocation

        run_dir = self.options.run_dir
        return RunLocation(self.runs_dir, None if run_dir is None else Path(run_dir))


@dataclass(frozen=True)
class Command:
    """A command of the program.

    Attributes
    ----------
    name : the words that select it, "evaluate" or "data fetch".
    summary : one line for the list of commands in the help.
    description : the first paragraph of the command's own help.
    example : an example command line, the last line of the command's own help.
    add_arguments : adds the command's arguments to its parser.
    run : runs the command. Data goes to stdout, messages to stderr; raises PartrainError or Interrupted.
    """

    name: str
    summary: str
    description: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[CommandContext], None]


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is; None if it is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def print_data(text: str, *, styled: bool = False) -> None:
    """Print a command's result to stdout; a reader that closes the pipe early, such as `head`, is not an error.

    Parameters
    ----------
    text : the result. Characters that control a terminal are replaced.
    styled : whether they have been replaced already, and those in `text` style it.

    Raises
    ------
    ResourceError
        It cannot be written, for example because the disk is full.
    """
    text = text if styled else printable_lines(text)
    with writing_stdout():
        print(text, flush=True)


def print_path(path: Path) -> None:
    """Print a path to stdout, byte for byte as the file system has it; on a terminal as `print_data` does."""
    if is_terminal(sys.stdout):
        print_data(str(path))
        return
    with writing_stdout():
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.flush()


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Handle errors of the block, which writes to stdout, as `print_data` does."""
    try:
        yield
    except OSError as error:
        # Otherwise Python would flush the rest at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise ResourceError(f"stdout: cannot be written: {error.strerror}") from error
