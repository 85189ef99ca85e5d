"""The command line: reads it, runs one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import partrain
from partrain.config import read_config
from partrain.errors import PartrainError, RunError
from partrain.interruption import Interrupted, Interruption
from partrain.messages import Messages
from partrain.parallel.machine import available_processors
from partrain.store.run_directory import check_writable, validate_run_name

COMMANDS = ("train",)

# What a wrong command line ends with; argparse's own.
USAGE_EXIT_CODE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code.

    Parameters
    ----------
    arguments : the command line without the program's name; `sys.argv` by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] and given[0] not in COMMANDS and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "train")
    options = _parser().parse_args(given)
    messages = Messages(quiet=options.quiet)
    interruption = Interruption()
    try:
        with interruption.watching():
            options.run(options, ["partrain", *given], messages, interruption)
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except Interrupted as interrupted:
        messages.error(f"ended by {interrupted}")
        return interrupted.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="partrain",
        description=partrain.__doc__,
        epilog="With no command named, the command is train.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"partrain {partrain.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train",
        help="train into a new run directory; prints its path",
        description="Train into a new run directory, and print its path as the last line of stdout.",
        epilog="example: partrain --config configs/mnist.yaml --workers 8 --set training.optimizer.lr=0.01",
        allow_abbrev=False,
    )
    train.set_defaults(run=_train)
    train.add_argument("--config", required=True, metavar="FILE", help="the configuration, a YAML file")
    train.add_argument(
        "--workers",
        type=_whole_number,
        metavar="N",
        help="processes that compute (default: the processors that may be used); 0: the coordinator computes",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override a value of the configuration, e.g. training.epochs=1; may be given several times",
    )
    where = train.add_mutually_exclusive_group()
    where.add_argument(
        "--runs-dir", default="runs", metavar="DIR", help="the folder that the run goes into (default: runs)"
    )
    where.add_argument("--run-dir", metavar="DIR", help="the run's own directory, which must not exist")
    train.add_argument(
        "--dry-run", action="store_true", help="print configuration, layers and memory plan, and train nothing"
    )
    train.add_argument("-q", "--quiet", action="store_true", help="say only warnings and errors")
    return parser


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 4096")
    return int(text)


def _train(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    config = read_config(options.config, options.overrides)
    validate_run_name(config.name)
    num_workers = available_processors() if options.workers is None else options.workers
    if options.dry_run:
        from partrain.preparation import describe_plan, prepare

        print(describe_plan(prepare(config, say=messages.say, warn=messages.warn), num_workers))
        return
    # Before anything starts: a job that could not be kept is not begun.
    run_dir = Path(options.run_dir) if options.run_dir is not None else None
    if run_dir is not None and os.path.lexists(run_dir):
        raise RunError(f"{run_dir}: exists already. Choose another --run-dir, or go on with that run.")
    from partrain.training_run import Place, train_new_run

    place = Place(Path(options.runs_dir), run_dir)
    check_writable(place.folder)
    run = train_new_run(
        config,
        place,
        num_workers,
        command_line=command_line,
        messages=messages,
        interruption=interruption,
    )
    print(run.path)
