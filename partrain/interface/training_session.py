"""Runs a command that trains, in this process and its workers or on the ranks of an MPI job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.interface.command import CommandContext, print_path

if TYPE_CHECKING:  # imports Numba
    from partrain.training.session import Session


def run_session(train: Callable[[Session], Path], context: CommandContext) -> None:
    """Train, and print the run's directory.

    Parameters
    ----------
    train : trains in a session and returns the run's directory. Of several ranks only rank 0 calls it.
    context : the command's.
    """
    options = context.options
    if options.engine == "mpi":
        from partrain.training.mpi.job import follow_training, run_on_ranks

        path = run_on_ranks(
            train,
            follow_training,
            shared_options(context),
            options.workers,
            context.command_line,
            context.messages,
            context.interruption,
        )
    else:
        from partrain.training.session import Session

        path = train(Session(context.num_workers, context.command_line, context.messages, context.interruption))
    if path is not None:
        print_path(path)


def shared_options(context: CommandContext) -> dict[str, Any]:
    """Return the options that must be the same on all ranks of an MPI job."""
    return {name: value for name, value in vars(context.options).items() if name not in ("workers", "quiet", "json")}
