"""`partrain import-article`: turn the article's saved parameters into a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.interface.arguments import add_new_run_location, add_quiet, finite_number, positive_number
from partrain.interface.command import Command, CommandContext, print_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the pickle file")
    add_new_run_location(parser)
    parser.add_argument(
        "--mean",
        type=finite_number,
        default=33.0,
        metavar="MEAN",
        help="the mean that the article's code subtracted from each pixel (default: 33, the mean of MNIST's test set)",
    )
    parser.add_argument(
        "--std",
        type=positive_number,
        default=79.0,
        metavar="STD",
        help="the standard deviation that it then divided by (default: 79)",
    )
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.network.normalisation import Normalisation
    from partrain.training.article_import import import_article

    options = context.options
    location = context.new_run_location()
    normalisation = Normalisation((options.mean,), (options.std,))
    run = import_article(Path(options.file), location, normalisation, context.command_line, context.messages.say)
    print_path(run.path)


COMMAND = Command(
    name="import-article",
    summary="turn the article's saved parameters into a run",
    description="Turn the article's saved file, a pickle of [params, cost], into a run, and print its path.",
    example="partrain import-article params.pkl --run-dir runs/article",
    add_arguments=_add_arguments,
    run=_run,
)
