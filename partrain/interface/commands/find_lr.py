"""`partrain find-lr`: find a learning rate with a range test."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.errors import ConfigError, MissingPackage
from partrain.interface.arguments import (
    add_json,
    add_overrides,
    add_quiet,
    add_runs_dir,
    add_workers,
    positive_integer,
    positive_number,
)
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.initial_parameters_options import add_initial_parameters, read_initial_parameters_options
from partrain.system.durable_files import json_text
from partrain.system.signals import Interrupted

# With fewer, the curve has no shape.
LEAST_STEPS = 20


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="the configuration, a YAML file, or an example's name"
    )
    add_workers(parser)
    add_overrides(parser)
    add_initial_parameters(parser)
    add_runs_dir(parser)
    parser.add_argument(
        "--from", type=positive_number, default=1e-6, dest="lowest", metavar="LR", help="the first rate (default: 1e-6)"
    )
    parser.add_argument(
        "--to", type=positive_number, default=10.0, dest="highest", metavar="LR", help="the last rate (default: 10)"
    )
    parser.add_argument(
        "--steps", type=positive_integer, default=200, metavar="N", help="the number of steps (default: 200)"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="also draw the curve (needs matplotlib)")
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options, messages = context.options, context.messages
    if not options.lowest < options.highest:
        raise ConfigError(f"--from {options.lowest:g} --to {options.highest:g}: the rate must rise")
    if options.steps < LEAST_STEPS:
        raise ConfigError(f"--steps {options.steps}: give at least {LEAST_STEPS}")
    if options.plot is not None:
        _require_plot(Path(options.plot))
    from partrain.config.example_files import find_config
    from partrain.config.reader import read_config

    config = read_config(find_config(options.config, messages.say), options.overrides)
    initial = read_initial_parameters_options(context)
    from partrain.interface.range_test_text import describe, facts_of
    from partrain.training.learning_rate_range import run_range_test
    from partrain.training.session import Session

    session = Session(context.num_workers, context.command_line, messages, context.interruption)
    test = run_range_test(config, options.lowest, options.highest, options.steps, session, initial)
    print_data(json_text(facts_of(test)) if options.json else describe(test))
    if options.plot is not None and test.losses:
        from partrain.analysis.plots.range_test import draw_range_test
        from partrain.store.output_files import write_output_file

        picture = draw_range_test(test.rates, test.losses, test.smoothed, test.suggestion)
        write_output_file(Path(options.plot), picture, "--plot")
        messages.say(f"{options.plot}: the curve")
    if context.interruption.received is not None:
        raise Interrupted(context.interruption.received)


def _require_plot(to: Path) -> None:
    """Check that the picture can be drawn and written, before anything is computed."""
    try:
        import matplotlib  # noqa: F401 (imported to see whether that works)
    except ImportError as error:
        raise MissingPackage("matplotlib", "plots", "--plot") from error
    from partrain.store.output_files import require_output_file

    if to.suffix.lower() != ".png":
        raise ConfigError(f"--plot {to}: the picture is a PNG file; give it the suffix .png")
    require_output_file(to, "--plot")


COMMAND = Command(
    name="find-lr",
    summary="find a learning rate: the loss while the rate rises",
    description="Train a few hundred steps while the learning rate rises exponentially (a range test), and print the "
    "loss at each rate and a suggestion. The configured rate and schedule are not used, and nothing else is written.",
    example="partrain find-lr --config configs/mnist.yaml --plot rates.png",
    add_arguments=_add_arguments,
    run=_run,
)
