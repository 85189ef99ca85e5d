"""`partrain predict`: classify image files, or an example of the run's data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, DataError, UserError
from partrain.interface.arguments import (
    SPLITS,
    add_checkpoint,
    add_data,
    add_json,
    add_quiet,
    add_run,
    add_weights,
    non_negative_integer,
)
from partrain.interface.command import Command, CommandContext, print_data
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="an image file (PNG, JPEG, BMP, WebP, GIF, TIFF), an .npy array, or a directory of them",
    )
    parser.add_argument(
        "--index", type=non_negative_integer, metavar="I", help="the index of an example in the split, from 0"
    )
    parser.add_argument("--split", choices=SPLITS, help="the split that --index refers to (default: test)")
    add_data(parser)
    add_checkpoint(parser)
    add_weights(parser)
    parser.add_argument(
        "--invert",
        action="store_true",
        help="invert the images: for dark on light, if the network was trained on light on dark (as MNIST is)",
    )
    parser.add_argument(
        "--prepare",
        choices=("mnist",),
        help="mnist: cut out, scale and centre a digit in a photograph, scan or drawing, as in MNIST's images",
    )
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options, messages = context.options, context.messages
    if bool(options.images) == (options.index is not None):
        raise ConfigError("predict: give image files, or --index I for an example of the data set")
    if options.images and options.split is not None:
        raise ConfigError("predict: --split goes with --index, not with image files")
    if options.images and options.data is not None:
        raise ConfigError("predict: --data goes with --index, not with image files")
    if options.prepare is not None and (options.invert or not options.images):
        raise ConfigError("predict: --prepare goes with image files, and finds out itself what is light and dark")
    path = context.find_run()
    from partrain.analysis import prediction

    checkpoint, invert, weights = options.checkpoint, options.invert, options.weights
    errors: list[UserError] = []
    if options.images:
        images = [Path(image) for image in options.images]
        predictions, errors = prediction.predict_files(
            path, checkpoint, images, invert=invert, prepare=options.prepare, messages=messages, weights=weights
        )
    else:
        split = SplitName(options.split or "test")
        predictions = [
            prediction.predict_example(
                path,
                checkpoint,
                split,
                options.index,
                invert=invert,
                messages=messages,
                data_path=options.data,
                weights=weights,
            )
        ]
    if predictions:
        print_data(json_text(predictions) if options.json else "\n".join(map(prediction.describe, predictions)))
    if errors:
        raise DataError("\n".join(map(str, errors)))


COMMAND = Command(
    name="predict",
    summary="classify image files, or an example of the data set",
    description="Classify image files, or an example of the data set. Prints the three most probable classes. Images "
    "are converted to the network's channels (grey or colour) and resized to its input. If an image cannot be used, "
    "the message names it, the others are classified, and the exit code is 2.",
    example="partrain predict last digit.png --invert",
    add_arguments=_add_arguments,
    run=_run,
)
