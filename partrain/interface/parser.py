"""The parser of the command line, built from the list of commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

import partrain
from partrain.interface.command import Command, print_data
from partrain.interface.commands import (
    bench,
    compare,
    completion,
    config,
    cross_validate,
    data_fetch,
    data_pack,
    data_show,
    data_verify,
    evaluate,
    examples,
    export,
    find_lr,
    import_article,
    init,
    list_runs,
    note,
    predict,
    remove,
    resume,
    sweep,
    train,
    verify,
    watch,
)
from partrain.system.terminal_text import printable_lines

# In the order in which the help lists them. A new command is a new module in commands/, imported and listed here.
COMMANDS: tuple[Command, ...] = (
    init.COMMAND,
    train.COMMAND,
    find_lr.COMMAND,
    sweep.COMMAND,
    cross_validate.COMMAND,
    resume.COMMAND,
    watch.COMMAND,
    evaluate.COMMAND,
    verify.COMMAND,
    predict.COMMAND,
    examples.COMMAND,
    compare.COMMAND,
    list_runs.COMMAND,
    note.COMMAND,
    remove.COMMAND,
    export.COMMAND,
    import_article.COMMAND,
    bench.COMMAND,
    config.COMMAND,
    completion.COMMAND,
    data_fetch.COMMAND,
    data_verify.COMMAND,
    data_show.COMMAND,
    data_pack.COMMAND,
)

# Summaries of the groups: commands whose names have the same first word.
GROUPS = {"data": "prepare and inspect data sets"}


class _UsageError(Exception):
    """The command line is wrong: the parser that found it, and its message."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors, so that more can be said about them; also if stdout cannot be written."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(self, message)

    def print_help(self, file: Any = None) -> None:
        if file is None:
            print_data(self.format_help().rstrip("\n"), styled=True)  # argparse would ignore an error
        else:
            super().print_help(file)


class _Version(argparse.Action):
    """Prints the version; argparse's own action ignores an error."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_data(f"partrain {partrain.__version__}")
        parser.exit()


def parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Parse the command line; without a command the command is `train`.

    Image files may stand before and after options, which argparse does not allow by itself.

    Parameters
    ----------
    arguments : the command line without the program's name.

    Returns
    -------
    The command and the values of its options.

    Raises
    ------
    ResourceError
        The help or the version cannot be written to stdout.
    SystemExit
        The command line is wrong, or asks for help or the version; argparse has printed the message.
    """
    parser = build_parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        command_parser = vars(options).pop("parser")
        images = [argument for argument in rest if hasattr(options, "images") and not argument.startswith("-")]
        unknown = [argument for argument in rest if argument not in images]
        if unknown:
            command_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except _UsageError as error:
        from partrain.interface.usage_hints import explain_usage_error

        parser, message = error.args
        explained = explain_usage_error(message, arguments, parser.format_usage(), _first_words())
        parser.exit(2, f"{parser.format_usage()}{parser.prog}: error: {printable_lines(explained)}\n")
    if images:
        options.images += images
    return next(command for command in COMMANDS if command.name == options.command), options


def insert_default_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line with `train` in front if it starts with an option."""
    starts_with_option = arguments and arguments[0].startswith("-")
    is_for_all = arguments and arguments[0] in ("-h", "--help", "--version")
    return ["train", *arguments] if starts_with_option and not is_for_all else list(arguments)


def _first_words() -> list[str]:
    return list(dict.fromkeys(command.name.split()[0] for command in COMMANDS))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Parsed options hold the command's name as `command`."""
    parser = _Parser(
        prog="partrain",
        description=partrain.__doc__,
        epilog="Without a command, the command is train.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    subparsers = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    groups: dict[str, Any] = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            groups[group] = _add_group(subparsers, group)
        command_parser = (groups[group] if group else subparsers).add_parser(
            name,
            help=command.summary,
            description=command.description,
            epilog=f"example: {command.example}",
            allow_abbrev=False,
        )
        command_parser.set_defaults(command=command.name, parser=command_parser)
        command.add_arguments(command_parser)
    return parser


def _add_group(subparsers: Any, name: str) -> Any:
    """Add a group of commands; return where its commands are added."""
    summary = GROUPS[name]
    group = subparsers.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    return group.add_subparsers(required=True, title="commands", metavar="COMMAND")
