"""`partrain resume`: continue a run from its newest good checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.interface.arguments import add_run, add_training_options, positive_integer
from partrain.interface.command import Command, CommandContext
from partrain.interface.training_session import run_training

if TYPE_CHECKING:  # imports Numba
    from partrain.training.session import Session


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--epochs", type=positive_integer, metavar="E", help="train for this many epochs in all")
    parser.add_argument("--max-steps", type=positive_integer, metavar="S", help="train for at most this many steps")
    add_training_options(parser)


def _run(context: CommandContext) -> None:
    run_training(lambda session: _resume(context, session), context)


def _resume(context: CommandContext, session: Session) -> Path:
    path = session.run_in_progress or context.find_run()  # before Numba is imported: a wrong name is reported at once
    from partrain.training.resume import Horizon
    from partrain.training.training_run import resume_run

    options, horizon = context.options, Horizon()
    if session.run_in_progress is None:  # otherwise the run has it already
        horizon = Horizon(options.epochs, options.max_steps)
    return resume_run(path, options.overrides, horizon, session).path


COMMAND = Command(
    name="resume",
    summary="continue a run from its newest good checkpoint",
    description="Continue a run in its directory. The result is bit for bit that of a run that was never stopped.",
    example="partrain resume last --workers 4",
    add_arguments=_add_arguments,
    run=_run,
)
