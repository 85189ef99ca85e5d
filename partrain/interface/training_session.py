"""Runs a command that trains, in this process and its workers or on the ranks of an MPI job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from partrain.errors import ConfigError
from partrain.interface.command import CommandContext, print_path

if TYPE_CHECKING:  # imports Numba
    from partrain.training.session import Session

Result = TypeVar("Result")


def run_session(work: Callable[[Session], Result], context: CommandContext) -> Result | None:
    """Call a function that trains or computes steps again; return its result, None on ranks other than 0.

    Parameters
    ----------
    work : works in a session. Of several ranks only rank 0 calls it.
    context : the command's.
    """
    options = context.options
    elastic, num_spares = require_engine(context)
    if options.engine == "mpi":
        from partrain.training.mpi.job import follow_training, run_on_ranks

        return run_on_ranks(
            work,
            follow_training,
            shared_options(context),
            options.workers,
            context.command_line,
            context.messages,
            context.interruption,
            elastic=elastic,
            num_spares=num_spares,
        )
    if context.num_workers:
        from partrain.parallel.workers.fork_server import start_fork_server

        # It takes as long to start as this process takes to import what training needs. The configuration is not known
        # yet; few need other kernels, and then the workers load them.
        start_fork_server("fast", "float32")
    from partrain.training.session import Session

    return work(Session(context.num_workers, context.command_line, context.messages, context.interruption))


def require_engine(context: CommandContext) -> tuple[bool, int]:
    """Return whether the job shall be elastic, and its number of spares.

    Raises
    ------
    ConfigError
        The options do not go together.
    """
    options = context.options
    elastic, num_spares = getattr(options, "elastic", False), getattr(options, "spares", None)  # if the command trains
    if elastic and options.engine != "mpi":
        raise ConfigError("--elastic goes with --engine mpi: it lets a job of several ranks go on when one dies")
    if num_spares is not None and not elastic:
        raise ConfigError("--spares goes with --engine mpi --elastic: spares take the places of ranks that die")
    return elastic, num_spares or 0


def run_training(train: Callable[[Session], Path], context: CommandContext) -> None:
    """Call a function that trains, and print the run's directory, which it returns."""
    path = run_session(train, context)
    if path is not None:
        print_path(path)


def shared_options(context: CommandContext) -> dict[str, Any]:
    """Return the options that must be the same on all ranks of an MPI job."""
    return {name: value for name, value in vars(context.options).items() if name not in ("workers", "quiet", "json")}
