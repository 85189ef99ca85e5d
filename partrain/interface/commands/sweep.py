"""`partrain sweep`: train with every combination of settings and seeds, or with settings that a sampler draws."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.errors import ConfigError
from partrain.interface.arguments import add_quiet, add_runs_dir, positive_integer, worker_count
from partrain.interface.command import Command, CommandContext

if TYPE_CHECKING:  # imports Numba
    from partrain.store.sweep_directory import Axis, Sampler
    from partrain.sweeps.trial_config import BaseConfig

OBJECTIVES = ("validation/accuracy", "validation/loss")


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that train many runs."""
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the configuration, a YAML file, or an example's name"
    )
    location = parser.add_mutually_exclusive_group()
    add_runs_dir(location)
    location.add_argument(
        "--sweep-dir", metavar="DIR", help="the directory of all runs (default: a new one in the directory of runs)"
    )
    parser.add_argument(
        "--objective",
        default=OBJECTIVES[0],
        metavar="|".join(OBJECTIVES),
        help=f"the metric that is compared, at the end of the training (default: {OBJECTIVES[0]})",
    )
    parser.add_argument(
        "--parallel",
        type=positive_integer,
        metavar="N",
        help="how many trainings run at a time (default: as many as there are processors for)",
    )
    parser.add_argument(
        "--workers",
        type=worker_count,
        default=0,
        metavar="N",
        help="number of worker processes of each training (default: 0, it computes in its own process)",
    )
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page with the settings and their results")
    add_quiet(parser)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE,VALUE",
        help="values to try, e.g. training.optimizer.lr=1e-3,3e-3; a list is one value if it is in brackets: "
        "[1,2],[3,4]; one value holds for all trainings; with --sampler also a range LOW..HIGH, drawn on a "
        "logarithmic scale if HIGH is at least 10 times LOW (log:LOW..HIGH or linear:LOW..HIGH says which); repeatable",
    )
    parser.add_argument("--seeds", metavar="0..4|0,3,7", help="train each setting with each of these seeds")
    parser.add_argument(
        "--sampler",
        choices=("random", "tpe"),
        metavar="random|tpe",
        help="draw settings at random, or where good ones were found (TPE), with Optuna (default: try all)",
    )
    parser.add_argument("--trials", type=positive_integer, metavar="N", help="how many settings the sampler draws")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="with --sampler: end a training early if its validation curve is worse than the median of the others'",
    )
    add_sweep_options(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    require_objective(options.objective)
    sampler = _sampler(options)
    from partrain.sweeps.axes import grid, parse_seeds, parse_settings
    from partrain.sweeps.trial_config import extreme_settings, make_trials

    overrides, axes = parse_settings(options.settings)
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    _require_something_to_vary(overrides, axes, seeds, sampler)
    settings = [] if sampler is not None else grid(axes, 1 if seeds is None else len(seeds))
    base = read_base(context, overrides)
    checked = [base.with_settings(each) for each in extreme_settings(axes)]
    seeds = [checked[0].seed] if seeds is None else seeds
    trials = make_trials(settings, seeds)
    from partrain.interface.sweep_run import Plan, train_sweep
    from partrain.sweeps.winner import evaluate_winner

    plan = Plan(
        kind="sweep",
        base=base,
        axes=axes,
        seeds=seeds,
        trials=trials,
        num_trials=len(trials) if sampler is None else sampler.num_settings * len(seeds),
        configs=[base.with_settings(each.settings, seed=each.seed) for each in trials] or checked,
        sampler=sampler,
    )
    train_sweep(context, plan, evaluate_winner)


def require_objective(objective: str) -> None:
    """Check that a metric can be the objective; raise ConfigError if not."""
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"--objective {objective}: this metric is not logged, or not measured on validation examples; it may be "
            f"{' or '.join(OBJECTIVES)}"
        )


def read_base(context: CommandContext, overrides: Sequence[str]) -> BaseConfig:
    """Read the configuration file of `--config`, with the overrides that all trainings have."""
    from partrain.config.example_files import find_config
    from partrain.sweeps.trial_config import BaseConfig

    return BaseConfig(Path(find_config(context.options.config, context.messages.say)), overrides)


def _sampler(options: argparse.Namespace) -> Sampler | None:
    """Return the sampler that the options name; None: there is none."""
    if options.sampler is None:
        if options.trials is not None or options.prune:
            given = "--prune" if options.trials is None else f"--trials {options.trials}"
            raise ConfigError(f"{given}: needs --sampler random or --sampler tpe; without one, all settings are tried")
        return None
    if options.trials is None:
        raise ConfigError(f"--sampler {options.sampler}: say how many settings it draws, e.g. --trials 40")
    from partrain.store.sweep_directory import Sampler
    from partrain.sweeps.sampler import require_optuna

    require_optuna()
    return Sampler(name=options.sampler, num_settings=options.trials, prune=options.prune)


def _require_something_to_vary(
    overrides: Sequence[str], axes: Sequence[Axis], seeds: Sequence[int] | None, sampler: Sampler | None
) -> None:
    if seeds is not None and any(text.partition("=")[0].strip() == "seed" for text in overrides):
        raise ConfigError("--set seed and --seeds both give the seed; leave one of them out")
    if sampler is not None and not axes:
        raise ConfigError(
            "--sampler: there is nothing to draw; give a range, e.g. --set training.optimizer.lr=1e-4..1e-2"
        )
    if sampler is not None and sampler.prune and seeds is not None and len(seeds) > 1:
        raise ConfigError("--prune compares single trainings; leave it out, or give one seed")
    if not axes and (seeds is None or len(seeds) == 1):
        raise ConfigError(
            "sweep: there is nothing to vary; give several values, e.g. --set training.optimizer.lr=1e-3,3e-3, or "
            "several seeds, e.g. --seeds 0..4"
        )


COMMAND = Command(
    name="sweep",
    summary="train with many settings and seeds, side by side",
    description="Train with every combination of values and seeds, or with settings that a sampler draws. The same "
    "command continues a sweep that was stopped or killed. The best setting is evaluated on the test examples. Prints "
    "a table of the settings, and the directory of the runs as the last line of stdout.",
    example="partrain sweep --config mnist.yaml --set training.optimizer.lr=1e-3,3e-3 --seeds 0..4",
    add_arguments=_add_arguments,
    run=_run,
)
