"""The command line: parses it, runs one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from partrain.errors import PartrainError
from partrain.interface.command import CommandContext
from partrain.interface.parser import insert_default_command, parse
from partrain.system.messages import Messages
from partrain.system.signals import SIGNALS, SIGNALS_OF_RANKS, Interrupted, Interruption


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code.

    Parameters
    ----------
    arguments : the command line without the program's name; `sys.argv` by default.
    """
    arguments = insert_default_command(sys.argv[1:] if arguments is None else arguments)
    command, options = parse(arguments)
    messages = Messages(quiet=options.quiet)
    with_ranks = getattr(options, "engine", "process") == "mpi"
    interruption = Interruption(SIGNALS_OF_RANKS if with_ranks else SIGNALS)
    try:
        with interruption.watching():
            command.run(CommandContext(options, ["partrain", *arguments], messages, interruption))
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except MemoryError:  # a limit that no memory plan knows, such as `ulimit -v`
        messages.error(
            "there is not enough memory for this process; free some, raise its limit (ulimit -v), or use a "
            "smaller batch, network or data set"
        )
        return 1
    except Interrupted as interrupted:
        messages.error(f"ended by {interrupted}")
        return interrupted.exit_code
    return 0
