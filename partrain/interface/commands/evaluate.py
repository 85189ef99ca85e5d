"""`partrain evaluate`: evaluate a run's network on its data."""

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
    add_workers,
)
from partrain.interface.command import Command, CommandContext, print_data
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_split(parser, default="test")
    add_data(parser)
    add_checkpoint(parser)
    add_weights(parser)
    add_workers(parser)
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    path = context.find_run()
    from partrain.analysis.classification_report import describe
    from partrain.analysis.evaluation import evaluate_run
    from partrain.analysis.plots.run_plots import write_plots

    options, split = context.options, SplitName(context.options.split)
    evaluated = evaluate_run(
        path,
        split,
        options.checkpoint,
        context.num_workers,
        context.messages,
        context.interruption,
        data_path=options.data,
        weights=options.weights,
    )
    print_data(json_text(evaluated.report) if options.json else describe(evaluated.report))
    trained = evaluated.trained
    if trained.weights == "raw":  # the run's pictures show its own weights
        write_plots(
            trained.run,
            trained.network,
            trained.parameters,
            evaluated.examples.images,
            evaluated.report,
            context.messages,
        )


COMMAND = Command(
    name="evaluate",
    summary="measure accuracy, recall and precision per class, confusion matrix",
    description="Evaluate a trained network on a split of its data: accuracy, loss, recall and precision per class, "
    "confusion matrix. Prints the figures, and writes them and plots into the run. A training run in progress is not "
    "disturbed.",
    example="partrain evaluate last --split test --checkpoint best --json",
    add_arguments=_add_arguments,
    run=_run,
)
