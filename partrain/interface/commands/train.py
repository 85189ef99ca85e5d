"""`partrain train`: train into a new run directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.interface.arguments import add_new_run_location, add_training_options
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.initial_parameters_options import add_initial_parameters, read_initial_parameters_options
from partrain.interface.training_session import require_engine, run_training
from partrain.store.run_location import RunLocation
from partrain.store.unfinished_run import is_unfinished

if TYPE_CHECKING:  # imports Numba
    from partrain.config.schema.config import Config
    from partrain.training.initial_parameters import InitialParameters
    from partrain.training.session import Session


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the configuration, a YAML file, or an example's name"
    )
    add_training_options(parser)
    add_new_run_location(parser)
    add_initial_parameters(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the configuration, the layers and the memory plan, and do not train",
    )


def _run(context: CommandContext) -> None:
    if context.options.dry_run:
        _print_plan(context)
    else:
        run_training(lambda session: _train(context, session), context)


def _train(context: CommandContext, session: Session) -> Path:
    run = session.run_in_progress
    if run is not None and not is_unfinished(run):
        from partrain.training.resume import Horizon
        from partrain.training.training_run import resume_run

        return resume_run(run, [], Horizon(), session).path
    config, initial = _read_inputs(context)
    location = context.new_run_location() if run is None else RunLocation(run.parent, run)
    location.require_creatable()
    from partrain.training.training_run import train_new_run

    return train_new_run(config, location, session, initial).path


def _read_inputs(context: CommandContext) -> tuple[Config, InitialParameters | None]:
    """Return the configuration, and the parameters of `--init-from`."""
    from partrain.config.example_files import find_config
    from partrain.config.reader import read_config
    from partrain.store.run_name import validate_run_name

    options = context.options
    config = read_config(find_config(options.config, context.messages.say), options.overrides)
    validate_run_name(config.name)
    return config, read_initial_parameters_options(context)


def _print_plan(context: CommandContext) -> None:
    _, num_spares = require_engine(context)
    from partrain.training.plan import describe_plan, plan_training

    config, initial = _read_inputs(context)
    plan = plan_training(config, say=context.messages.say, warn=context.messages.warn)
    if initial is not None:
        initial.starting_point(plan, context.messages)
    if context.options.engine != "mpi":
        print_data(describe_plan(plan, context.num_workers))
        return
    from partrain.training.mpi.exchange_table import describe_exchange, planned_bytes_of_ranks

    exchange = describe_exchange(plan, os.environ, num_spares)
    print_data(describe_plan(plan, context.num_workers, planned_bytes_of_ranks(plan, os.environ, num_spares)))
    print_data(exchange)


COMMAND = Command(
    name="train",
    summary="train into a new run directory",
    description="Train into a new run directory, and print its path as the last line of stdout.",
    example="partrain --config configs/mnist.yaml --workers 8 --set training.optimizer.lr=0.01",
    add_arguments=_add_arguments,
    run=_run,
)
