"""The options `--init-from` and `--strict`: parameters to start from."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from partrain.errors import ConfigError
from partrain.interface.arguments import RUN_HELP
from partrain.interface.command import CommandContext

if TYPE_CHECKING:
    from partrain.training.initial_parameters import InitialParameters


def add_initial_parameters(parser: argparse.ArgumentParser) -> None:
    """Add `--init-from` and `--strict`, for a command that has `--runs-dir`."""
    parser.add_argument(
        "--init-from",
        metavar="RUN|FILE",
        help="start from the parameters that fit by name and shape: of a .safetensors file, also PyTorch's, or of the "
        f"newest checkpoint of another run: {RUN_HELP}",
    )
    parser.add_argument(
        "--strict", action="store_true", help="with --init-from: refuse parameters that do not fit completely"
    )


def read_initial_parameters_options(context: CommandContext) -> InitialParameters | None:
    """Return the parameters that `--init-from` names; None without it.

    Raises
    ------
    ConfigError
        `--strict` is given alone.
    RunError, ResourceError
        As for `read_initial_parameters`.
    """
    options = context.options
    if options.init_from is None:
        if options.strict:
            raise ConfigError("--strict goes with --init-from: it refuses parameters that do not fit completely")
        return None
    from partrain.training.initial_parameters import read_initial_parameters

    return read_initial_parameters(options.init_from, context.runs_dir, context.messages.warn, strict=options.strict)
