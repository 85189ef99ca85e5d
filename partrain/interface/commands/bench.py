"""`partrain bench`: measure this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from partrain.errors import ConfigError
from partrain.interface.arguments import add_engine, add_json, add_quiet, worker_counts
from partrain.interface.command import Command, CommandContext, print_data
from partrain.interface.training_session import shared_options
from partrain.system.durable_files import json_text

if TYPE_CHECKING:  # imports Numba
    from partrain.training.session import Session


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the training to measure (default: the article's network on synthetic digits)",
    )
    parser.add_argument(
        "--workers",
        type=worker_counts,
        metavar="N,N",
        help="numbers of workers to measure, e.g. 1,2,4 (default: 1, 2, 4 … up to the number of usable processors); "
        "0: compute in the main process",
    )
    add_engine(parser)
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    if options.engine == "mpi":
        _bench_ranks(context)
        return
    from partrain.config.example_files import find_config
    from partrain.config.reader import read_config

    say = context.messages.say
    config = None if options.config is None else read_config(find_config(options.config, say))
    from partrain.bench.measurement import measure
    from partrain.bench.table import describe

    report = measure(config, options.workers, context.messages, context.interruption)
    print_data(json_text(report) if options.json else describe(report))


def _bench_ranks(context: CommandContext) -> None:
    options = context.options
    worker_numbers = options.workers or [None]
    if len(worker_numbers) > 1:
        raise ConfigError("bench --engine mpi: give one number of workers; each rank starts that many")
    from partrain.bench.measurement import DEFAULT_CONFIG
    from partrain.bench.rank_table import describe
    from partrain.bench.ranks import take_part_in_bench
    from partrain.config.example_files import find_config
    from partrain.config.reader import parse_config, read_config
    from partrain.training.mpi.job import run_on_ranks

    def lead(session: Session) -> dict[str, Any]:
        if options.config is None:
            config = parse_config(DEFAULT_CONFIG, source="bench")
        else:
            config = read_config(find_config(options.config, context.messages.say))
        return take_part_in_bench(session, config)

    def follow(session: Session) -> None:
        take_part_in_bench(session, None)

    facts = run_on_ranks(
        lead,
        follow,
        shared_options(context),
        worker_numbers[0],
        context.command_line,
        context.messages,
        context.interruption,
    )
    if facts is not None:
        print_data(json_text(facts) if options.json else describe(facts))


COMMAND = Command(
    name="bench",
    summary="measure this machine: kernels, phases of a step, scaling",
    description="Measure this machine: time of each kernel, phases of a training step, scaling over workers. Trains "
    "for a few seconds and writes nothing.",
    example="partrain bench --config configs/mnist.yaml --workers 1,2,4 --json",
    add_arguments=_add_arguments,
    run=_run,
)
