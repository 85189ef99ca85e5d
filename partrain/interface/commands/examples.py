"""`partrain examples`: find the examples that a run's network finds hardest."""

from __future__ import annotations

import argparse

from partrain.data.split_name import SplitName
from partrain.interface.arguments import (
    add_checkpoint,
    add_data,
    add_json,
    add_quiet,
    add_run,
    add_split,
    add_weights,
    positive_integer,
)
from partrain.interface.command import Command, CommandContext, print_data
from partrain.system.durable_files import json_text
from partrain.system.machine import available_processors


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_split(parser, default="train")
    add_data(parser)
    add_checkpoint(parser)
    add_weights(parser)
    parser.add_argument(
        "--top", type=positive_integer, default=25, metavar="N", help="how many examples per list (default: 25)"
    )
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    path = context.find_run()
    from partrain.analysis.hardest_examples import describe, find_hardest_examples
    from partrain.analysis.plots.example_sheets import write_example_sheets

    options, messages = context.options, context.messages
    split, num_workers = SplitName(options.split), available_processors()
    hardest = find_hardest_examples(
        path,
        split,
        options.top,
        options.checkpoint,
        num_workers,
        messages,
        context.interruption,
        data_path=options.data,
        weights=options.weights,
    )
    print_data(json_text(hardest.facts) if options.json else describe(hardest.facts))
    if options.weights == "raw":  # the run's pictures show its own weights
        write_example_sheets(hardest.trained.run, hardest.examples.images, hardest.facts, messages)


COMMAND = Command(
    name="examples",
    summary="find the examples with the largest loss and gradient norm",
    description="Find the hardest examples of a trained network: those with the largest loss, and those with the "
    "largest gradient norm. Wrong labels tend to come first. Writes sheets of their images into the run.",
    example="partrain examples last --split train --top 50",
    add_arguments=_add_arguments,
    run=_run,
)
