"""The command line: reads it, runs one command, and turns errors into a message and an exit code."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.analysis.listing import describe as describe_list
from partrain.analysis.listing import list_runs
from partrain.analysis.logged_run import LoggedRun
from partrain.config.yaml_file import parse_config, read_config
from partrain.data.batches import SplitRange
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError, MissingPackage, PartrainError, ResourceError, RunError
from partrain.interface.parser import COMMANDS, RUNS_DIR, parse
from partrain.network.normalisation import Normalisation
from partrain.parallel.workers.fork_server import start_fork_server
from partrain.store.run_directory import Place, check_writable, validate_run_name
from partrain.store.run_lookup import find_run
from partrain.system.durable_files import json_text
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.signals import SIGNALS, SIGNALS_OF_RANKS, Interrupted, Interruption

if TYPE_CHECKING:  # they bring Numba, which a command that computes nothing must not import
    from partrain.config.schema import Config
    from partrain.training.initial_parameters import InitialParameters
    from partrain.training.session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code.

    Parameters
    ----------
    arguments : the command line without the program's name; `sys.argv` by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] and given[0] not in COMMANDS and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "train")
    options = parse(given)
    messages = Messages(quiet=options.quiet)
    with_ranks = getattr(options, "engine", "process") == "mpi"
    interruption = Interruption(SIGNALS_OF_RANKS if with_ranks else SIGNALS)
    try:
        with interruption.watching():
            RUN[options.command](options, ["partrain", *given], messages, interruption)
    except PartrainError as error:
        messages.error(str(error))
        return error.exit_code
    except MemoryError:  # a limit that no plan could know of, such as a shell's
        messages.error(
            "there is not enough memory for this process; free some, or raise the limit that it runs under "
            "(ulimit -v), or use a smaller batch, network or data set"
        )
        return 1
    except Interrupted as interrupted:
        messages.error(f"ended by {interrupted}")
        return interrupted.exit_code
    return 0


def _train(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    def lead(session: Session) -> Path:
        config, initial = _read_job(options, messages)
        # Before anything starts: a job that could not be kept is not begun.
        run_dir = Path(options.run_dir) if options.run_dir is not None else None
        if run_dir is not None and os.path.lexists(run_dir):
            raise RunError(f"{run_dir}: exists already. Choose another --run-dir, or go on with that run.")
        place = Place(Path(options.runs_dir), run_dir)
        check_writable(place.folder)
        if session.num_workers and session.ranks is None:
            start_fork_server(config.training.kernels, config.training.dtype)  # while this process loads Numba
        from partrain.training.training_run import train_new_run

        return train_new_run(config, place, session, initial).path

    if options.dry_run:
        _print_plan(options, messages)
    else:
        _run_session(lead, options, command_line, messages, interruption)


def _read_job(options: argparse.Namespace, messages: Messages) -> tuple[Config, InitialParameters | None]:
    config = read_config(options.config, options.overrides)
    validate_run_name(config.name)
    if options.init_from is None:
        return config, None
    from partrain.training.initial_parameters import read_initial_parameters

    return config, read_initial_parameters(find_run(options.init_from, Path(options.runs_dir)), messages.warn)


def _print_plan(options: argparse.Namespace, messages: Messages) -> None:
    from partrain.training.plan import describe_plan, plan_training

    config, initial = _read_job(options, messages)
    plan = plan_training(config, say=messages.say, warn=messages.warn)
    if initial is not None:
        initial.require_fit(plan.network)
    _print(describe_plan(plan, _num_workers(options)))
    if options.engine == "mpi":
        from partrain.training.mpi.exchange_table import describe_exchange

        _print(describe_exchange(plan, os.environ))


def _run_session(
    lead: Callable[[Session], Path],
    options: argparse.Namespace,
    command_line: Sequence[str],
    messages: Messages,
    interruption: Interruption,
) -> None:
    """Train in this process and its workers, or with the ranks of an MPI job; print the run's directory."""
    if options.engine == "mpi":
        from partrain.training.mpi.job import follow_training, run_on_ranks

        path = run_on_ranks(
            lead, follow_training, _asked(options), options.workers, command_line, messages, interruption
        )
    else:
        from partrain.training.session import Session

        path = lead(Session(_num_workers(options), command_line, messages, interruption))
    if path is not None:
        print(path)


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that must be the same on all ranks."""
    return {name: value for name, value in vars(options).items() if name not in ("workers", "quiet", "json")}


def _resume(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    def lead(session: Session) -> Path:
        path = find_run(options.reference, Path(RUNS_DIR))
        from partrain.training.resume import Horizon
        from partrain.training.training_run import resume_run

        return resume_run(path, options.overrides, Horizon(options.epochs, options.max_steps), session).path

    _run_session(lead, options, command_line, messages, interruption)


def _evaluate(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain.analysis.classification_report import describe
    from partrain.analysis.evaluation import evaluate_run
    from partrain.analysis.plots.run_plots import write_plots

    evaluated = evaluate_run(path, options.split, options.checkpoint, _num_workers(options), messages, interruption)
    _print(json_text(evaluated.report) if options.json else describe(evaluated.report))
    trained = evaluated.trained
    write_plots(
        trained.run,
        trained.network,
        trained.parameters,
        evaluated.dataset,
        evaluated.split,
        evaluated.report,
        messages,
    )


def _predict(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    if bool(options.images) == (options.index is not None):
        raise ConfigError("predict: give image files, or --index I for an example of the data set")
    if options.images and options.split is not None:
        raise ConfigError("predict: --split goes with --index, not with image files")
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain.analysis import prediction

    which, invert = options.checkpoint, options.invert
    if options.images:
        images = [Path(image) for image in options.images]
        outcomes = prediction.predict_files(path, which, images, invert=invert, messages=messages)
    else:
        split = options.split or "test"
        outcomes = [prediction.predict_example(path, which, split, options.index, invert=invert, messages=messages)]
    _print(json_text(outcomes) if options.json else "\n".join(map(prediction.describe, outcomes)))


def _examples(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    path = find_run(options.reference, Path(RUNS_DIR))
    from partrain.analysis.example_ranking import describe, rank_examples
    from partrain.analysis.plots.example_sheet import write_example_sheets

    ranking = rank_examples(path, options.split, options.top, available_processors(), messages, interruption)
    _print(json_text(ranking.facts) if options.json else describe(ranking.facts))
    write_example_sheets(ranking.trained.run, ranking.dataset, ranking.split, ranking.facts, messages)


def _compare(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    if len(options.references) < 2:
        raise ConfigError("compare: give two runs or more, e.g. partrain compare last~1 last")
    paths = [find_run(reference, Path(RUNS_DIR)) for reference in options.references]
    places: dict[str, str] = {}
    for reference, path in zip(options.references, paths, strict=True):
        place = os.path.realpath(path)
        if place in places:
            raise ConfigError(f"compare: {places[place]} and {reference} are the same run, {path}. Name each run once.")
        places[place] = reference
    from partrain.analysis.comparison import compare
    from partrain.analysis.comparison_text import describe

    runs = [LoggedRun.open(path) for path in paths]
    facts = compare(runs, everything=options.all)
    if options.html is not None:
        from partrain.analysis.html_report.page import write_page

        write_page(Path(options.html), runs, facts)
        messages.say(f"the page is {options.html}")
    if options.json:
        _print(json_text(facts))
    else:
        on_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if on_terminal else None
        _print(describe(facts, width=width, bold=on_terminal and not os.environ.get("NO_COLOR")))


def _list(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    runs_dir = Path(options.runs_dir or RUNS_DIR)
    # The default folder is made by the first training.
    nothing_yet = options.runs_dir is None and not runs_dir.exists()
    entries = [] if nothing_yet else list_runs(runs_dir, options.sort, options.status)
    if options.json:
        _print(json_text(entries))
    elif entries:
        _print(describe_list(entries, datetime.now(UTC)))
    else:
        messages.say(f"no runs in {runs_dir}" + (f" that are {options.status}" if options.status else ""))


def _export(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.analysis.export.formats import choose_format, export_run

    format_name = choose_format(options.to, options.format)
    path = find_run(options.reference, Path(RUNS_DIR))
    print(export_run(path, Path(options.to), format_name, say=messages.say, warn=messages.warn))


def _import_article(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.training.article_import import import_article

    place = Place(Path(RUNS_DIR), None if options.run_dir is None else Path(options.run_dir))
    normalisation = Normalisation((options.mean,), (options.std,))
    print(import_article(Path(options.file), place, normalisation, command_line, messages.say).path)


def _bench(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    if options.engine == "mpi":
        _bench_ranks(options, command_line, messages, interruption)
        return
    config = None if options.config is None else read_config(options.config)
    from partrain.bench.measurement import measure
    from partrain.bench.table import describe

    report = measure(config, options.workers, messages, interruption)
    _print(json_text(report) if options.json else describe(report))


def _bench_ranks(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    numbers = options.workers or [None]
    if len(numbers) > 1:
        raise ConfigError("bench --engine mpi: give one number of workers; each rank starts so many")
    from partrain.bench.measurement import DEFAULT_CONFIG
    from partrain.bench.rank_table import describe
    from partrain.bench.ranks import take_part_in_bench
    from partrain.training.mpi.job import run_on_ranks

    def lead(session: Session) -> dict[str, Any]:
        built_in = options.config is None
        config = parse_config(DEFAULT_CONFIG, source="bench") if built_in else read_config(options.config)
        return take_part_in_bench(session, config)

    def follow(session: Session) -> None:
        take_part_in_bench(session, None)

    facts = run_on_ranks(lead, follow, _asked(options), numbers[0], command_line, messages, interruption)
    if facts is not None:
        _print(json_text(facts) if options.json else describe(facts))


def _data_fetch(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.data.files_ahead import describe, fetch

    print(describe(fetch(options.name, messages.say)))


def _data_verify(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.data.files_ahead import describe, require_all_right, verify

    reports = verify(options.name)
    print(describe(reports), flush=True)
    require_all_right(options.name, reports)


def _data_show(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.analysis.data_inspection import describe, inspect, write_sheet

    dataset, splits = _load_source(options, messages)
    facts = inspect(dataset, splits)
    _print(json_text(facts) if options.json else describe(facts))
    sheet = Path(options.sheet or f"{dataset.name}-examples.png")
    try:
        write_sheet(dataset, splits, sheet)
        messages.say(f"examples of each class are in {sheet}")
    except MissingPackage as missing:
        if options.sheet is not None:
            raise
        messages.say(f"no sheet is drawn: {missing}")
    except OSError as error:
        raise ResourceError(f"{sheet}: cannot be written: {error.strerror}") from error


def _data_pack(
    options: argparse.Namespace, command_line: Sequence[str], messages: Messages, interruption: Interruption
) -> None:
    from partrain.data.packing import pack

    dataset, splits = _load_source(options, messages)
    print(pack(dataset, splits, Path(options.to)))


def _load_source(options: argparse.Namespace, messages: Messages) -> tuple[Dataset, dict[str, SplitRange]]:
    from partrain.data.loading import load_data
    from partrain.data.source_lookup import read_source

    pictures = {"size": options.size, "channels": options.channels, "on_broken": options.on_broken}
    data, seed = read_source(options.source, pictures)
    return load_data(data, seed, say=messages.say, warn=messages.warn)


def _print(text: str) -> None:
    """Print data; whoever reads it may have seen enough, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Else Python would try to flush the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _num_workers(options: argparse.Namespace) -> int:
    return available_processors() if options.workers is None else int(options.workers)


RUN = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "predict": _predict,
    "examples": _examples,
    "compare": _compare,
    "list": _list,
    "export": _export,
    "import-article": _import_article,
    "bench": _bench,
    "data fetch": _data_fetch,
    "data verify": _data_verify,
    "data show": _data_show,
    "data pack": _data_pack,
}
