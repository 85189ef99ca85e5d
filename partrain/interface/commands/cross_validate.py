"""`partrain cross-validate`: train once without each fold of the data, and classify the fold."""

from __future__ import annotations

import argparse

from partrain.errors import ConfigError
from partrain.interface.arguments import positive_integer
from partrain.interface.command import Command, CommandContext
from partrain.interface.commands.sweep import add_sweep_options, read_base, require_objective


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folds", type=positive_integer, default=5, metavar="N", help="the number of folds, at least 2 (default: 5)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a configuration value of all trainings, e.g. training.optimizer.lr=0.01; repeatable",
    )
    add_sweep_options(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    require_objective(options.objective)
    if options.folds < 2:
        raise ConfigError("--folds 1: give at least 2 folds: one is for validation, the others are for training")
    from partrain.sweeps.trial_config import make_trials

    base = read_base(context, options.overrides)
    config = base.with_settings({})
    if config.data.fold is not None:
        raise ConfigError("data.fold: leave it out; cross-validate trains each fold")
    trials = make_trials([{}], [config.seed], options.folds)
    from partrain.interface.sweep_run import Plan, train_sweep
    from partrain.sweeps.out_of_fold import predict_out_of_fold

    plan = Plan(
        kind="cross-validation",
        base=base,
        axes=[],
        seeds=[config.seed],
        trials=trials,
        num_trials=len(trials),
        configs=[base.with_settings({}, fold=(number, options.folds)) for number in range(1, options.folds + 1)],
        folds=options.folds,
    )
    train_sweep(context, plan, predict_out_of_fold)


COMMAND = Command(
    name="cross-validate",
    summary="train once without each fold of the data, and classify the fold",
    description="Divide the training and validation examples into folds, with equally many of each class. Train a run "
    "for each fold, without its examples, and classify them. Prints mean ± standard deviation of the folds, and the "
    "figures over all examples; writes the prediction for each example to predictions.csv in the directory of the "
    "runs, which is the last line of stdout. The same command continues after any end.",
    example="partrain cross-validate --config mnist.yaml --folds 5",
    add_arguments=_add_arguments,
    run=_run,
)
