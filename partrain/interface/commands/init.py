"""`partrain init`: write a configuration to start from."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.errors import ConfigError, ResourceError
from partrain.interface.arguments import add_quiet
from partrain.interface.command import Command, CommandContext, print_path

if TYPE_CHECKING:
    from partrain.config.starter import Pictures

_MAX_LISTED = 8


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the file to write (default: mnist.yaml, or DIR's name with .yaml)"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="a directory with a subdirectory of images per class (default: MNIST)"
    )
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    from partrain.config.reader import parse_config
    from partrain.config.starter import MNIST, write_starter
    from partrain.config.yaml_loader import load_yaml
    from partrain.store.output_files import require_output_file

    options = context.options
    name = "mnist" if options.data is None else _name_of(options.data)
    file = Path(options.file or f"{name}.yaml")
    require_output_file(file, "init")
    if os.path.lexists(file):
        raise ConfigError(f"{file}: exists already. Name another file: partrain init FILE")
    text = MNIST if options.data is None else write_starter(_pictures(options.data, name))
    parse_config(load_yaml(text, str(file)), source=str(file))
    try:
        with open(file, "x", encoding="utf-8") as output:
            output.write(text)
    except OSError as error:
        raise ResourceError(f"{file}: cannot be written: {error.strerror}") from error
    context.messages.say(f"look at it, then train: partrain --config {shlex.quote(str(file))}")
    print_path(file)


def _name_of(directory: str) -> str:
    """Return a name for runs on a directory of images."""
    words = re.sub(r"[^\w+.-]+", "-", os.path.basename(os.path.abspath(directory)), flags=re.ASCII)
    return words.strip("-.")[:100] or "pictures"


def _pictures(directory: str, name: str) -> Pictures:
    from partrain.config.starter import Pictures
    from partrain.data.image_survey import survey_images
    from partrain.data.source_argument import kind_of
    from partrain.data.split_name import SplitName
    from partrain.system.terminal_text import printable

    path = os.path.abspath(directory)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"--data {directory}: its path is not UTF-8, and cannot be in a configuration") from None
    if not os.path.isdir(path):
        raise ConfigError(f"--data {directory}: is not a directory of images")
    if (kind := kind_of(path)) != "folder":
        raise ConfigError(
            f"--data {directory}: holds {kind}, not images. Write data: {{name: {kind}, path: {directory}}} instead; "
            "partrain data show describes it"
        )
    survey = survey_images(path)
    shown = [printable(each) for each in survey.class_names[:_MAX_LISTED]]
    shown += ["…"] * (len(survey.class_names) > _MAX_LISTED)
    sizes = sorted(survey.class_sizes.get(each, 0) for each in survey.class_names)
    rows, columns = survey.median_size
    num_images = f"{sizes[0]:,} images each" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,} images"
    description = [
        f"{len(survey.class_names):,} classes, of {num_images}: {', '.join(shown)}",
        f"images: {', '.join(f'{number:,} for {split}' for split, number in survey.num_images.items())}",
        f"size: {'' if survey.same_size else 'usually '}{rows} rows x {columns} columns, "
        + ("grey" if survey.channels == 1 else "colour"),
        *(f"cannot be read: {printable(str(file))}" for file in survey.broken[:_MAX_LISTED]),
    ]
    return Pictures(
        name=name,
        path=path,
        description=tuple(description),
        num_classes=len(survey.class_names),
        num_train=survey.num_images[SplitName.TRAIN],
        imbalance=sizes[-1] / max(1, sizes[0]),
        size=survey.size,
        channels=survey.channels,
        has_broken=bool(survey.broken),
    )


COMMAND = Command(
    name="init",
    summary="write a configuration to start from",
    description="Write a commented configuration that trains: for a directory of images, which is inspected, or for "
    "MNIST. An existing file is not replaced.",
    example="partrain init --data photos/",
    add_arguments=_add_arguments,
    run=_run,
)
