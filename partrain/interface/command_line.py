"""The command line: parses it, runs one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from partrain.errors import PartrainError
from partrain.interface.command import Command, CommandContext
from partrain.interface.parser import build_parser, insert_default_command, parse
from partrain.system.messages import Messages
from partrain.system.signals import SIGNALS, SIGNALS_OF_RANKS, Interrupted, Interruption, interruption_behind


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code.

    Parameters
    ----------
    arguments : the command line without the program's name; `sys.argv` by default.
    """
    arguments = insert_default_command(sys.argv[1:] if arguments is None else arguments)
    try:
        command, options = parse(arguments)
    except PartrainError as error:
        Messages(quiet=False).error(str(error))
        return error.exit_code
    messages = Messages(quiet=options.quiet)
    with_ranks = getattr(options, "engine", "process") == "mpi"
    interruption = Interruption(SIGNALS_OF_RANKS if with_ranks else SIGNALS)
    try:
        with interruption.watching():
            return _run(
                command, CommandContext(options, ["partrain", *arguments], messages, interruption, build_parser)
            )
    except Interrupted as interrupted:  # the command had already ended
        return interrupted.exit_code


def _run(command: Command, context: CommandContext) -> int:
    """Run a command, and print the message of an error; return the exit code."""
    messages = context.messages
    try:
        command.run(context)
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except MemoryError:  # a limit that no memory plan knows, such as `ulimit -v`
        messages.error(
            "there is not enough memory for this process; free some, raise its limit (ulimit -v), or use a "
            "smaller batch, network or data set"
        )
        return 1
    except (Interrupted, Exception) as error:
        if (interrupted := interruption_behind(error)) is None:
            raise
        messages.error(f"ended by {interrupted}")
        return interrupted.exit_code
    return 0
