"""The data set that the commands `data show` and `data pack` take: its arguments, and reading it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from partrain.interface.arguments import image_size
from partrain.interface.command import CommandContext

if TYPE_CHECKING:  # a command loads NumPy only when it runs
    from partrain.data.dataset import Dataset


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a data set."""
    parser.add_argument(
        "source",
        metavar="NAME|PATH",
        help="a data set's name, a directory of images, of .npy or of IDX files, an .npz file, or a configuration "
        "(a file, or an example's name)",
    )
    parser.add_argument(
        "--size",
        type=image_size,
        metavar="ROWS,COLUMNS",
        help="for a directory of images: the size to resize them to; one number for both",
    )
    parser.add_argument(
        "--channels", type=int, choices=(1, 3), help="for a directory of images: 1 grey, 3 colour (default: 3)"
    )
    parser.add_argument(
        "--on-broken",
        choices=("error", "skip"),
        help="for a directory of images: what to do with a broken file (default: error)",
    )
    parser.add_argument(
        "--layout",
        choices=("channels_first", "channels_last"),
        help="for arrays: the order of the axes of images, (N,C,H,W) or (N,H,W,C) (default: channels_first)",
    )


def load_source(context: CommandContext) -> Dataset:
    """Return the data set that the arguments name."""
    from partrain.config.example_files import find_config
    from partrain.data.loading import load_dataset
    from partrain.data.source_argument import read_source

    options, say, warn = context.options, context.messages.say, context.messages.warn
    given = {key: getattr(options, key) for key in ("size", "channels", "on_broken", "layout")}
    data, seed = read_source(find_config(options.source, say), given)
    return load_dataset(data, seed, say=say, warn=warn)
