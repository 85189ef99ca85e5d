"""`partrain completion`: print a script that lets a shell complete the command line."""

from __future__ import annotations

import argparse
from typing import Any

from partrain.errors import MissingPackage
from partrain.interface.arguments import add_quiet
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.commands import train
from partrain.interface.run_completion import FUNCTIONS, RUN_COMPLETION, RUN_OR_FILE_COMPLETION

SHELLS = ("bash", "zsh", "fish")
# What a value is by its name in the help.
_FILES = ("FILE", "IMAGE", "PATH", "NAME|PATH", "FILE.npz|DIR", "FILE.png", "last|best|FILE")
_DIRECTORIES = ("DIR",)
_RUNS = ("RUN", "SWEEP", "RUN|SWEEP")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise MissingPackage("shtab", "completion", "completion") from error
    parser = context.build_parser()
    train.COMMAND.add_arguments(parser)  # without a command, the command is train
    paths = {name: shtab.FILE for name in _FILES} | {name: shtab.DIRECTORY for name in _DIRECTORIES}
    runs = {name: RUN_COMPLETION for name in _RUNS} | {"RUN|FILE": RUN_OR_FILE_COMPLETION}
    _mark_values(parser, paths | runs)
    shell = context.options.shell
    script = shtab.complete(parser, shell=shell, preamble=FUNCTIONS[shell])
    # shtab 1.13 lets zsh complete only the first of several values of an argument, as of RUN RUN…
    print_data(script.replace('"(*)::', '"*:').replace('"(*):', '"*:') if shell == "zsh" else script, styled=True)


def _mark_values(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Let the shell complete the values of these names in the given ways."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _mark_values(inner, kinds)
        elif action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]


COMMAND = Command(
    name="completion",
    summary="print a script for completion in bash, zsh or fish",
    description="Print a script that lets a shell complete commands, options, runs and paths. Save it where the shell "
    "looks: bash ~/.local/share/bash-completion/completions/partrain, zsh a file _partrain in a directory of $fpath, "
    "fish ~/.config/fish/completions/partrain.fish.",
    example="partrain completion bash > ~/.local/share/bash-completion/completions/partrain",
    add_arguments=_add_arguments,
    run=_run,
)
