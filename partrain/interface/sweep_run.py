"""Runs a command that trains many runs: from its plan to the table of results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from partrain.analysis.html_report.document import require_plotly
from partrain.analysis.sweep_table import describe_results
from partrain.config.schema.config import Config
from partrain.errors import FailedRun
from partrain.interface.command import CommandContext, print_data, print_path
from partrain.store.output_files import require_output_file
from partrain.store.run_location import check_writable
from partrain.store.sweep_directory import Axis, Sampler, SweepDirectory, SweepRecord, Trial
from partrain.sweeps.sweep_record import begin, describe_axes, find_sweep
from partrain.sweeps.trial_config import BaseConfig, plain_config

if TYPE_CHECKING:  # imports Numba
    from partrain.sweeps.sweep import Sweep, SweepSession

Finish = Callable[["Sweep", "SweepSession"], str]


@dataclass(frozen=True)
class Plan:
    """What a command trains.

    Attributes
    ----------
    kind, axes, seeds, trials, num_trials, sampler, folds : as in `SweepRecord`.
    base : the configuration that all trials change.
    configs : the configurations of the trials, as far as they are known.
    """

    kind: Literal["sweep", "cross-validation"]
    base: BaseConfig
    axes: list[Axis]
    seeds: list[int]
    trials: list[Trial]
    num_trials: int
    configs: list[Config]
    sampler: Sampler | None = None
    folds: int | None = None

    def config_of(self, trial: Trial) -> Config:
        """Return the configuration of a trial."""
        fold = None if trial.fold is None or self.folds is None else (trial.fold, self.folds)
        return self.base.with_settings(trial.settings, seed=trial.seed, fold=fold)

    def record(self, command_line: Sequence[str], objective: str, started: datetime) -> SweepRecord:
        """Return the record of a new sweep."""
        return SweepRecord.model_validate(
            {
                "kind": self.kind,
                "command_lines": [list(command_line)],
                "started": started.isoformat(timespec="milliseconds"),
                "config": plain_config(self.configs[0]),
                "axes": self.axes,
                "seeds": self.seeds,
                "folds": self.folds,
                "sampler": self.sampler,
                "objective": objective,
                "num_trials": self.num_trials,
                "trials": self.trials,
            }
        )


def train_sweep(context: CommandContext, plan: Plan, finish: Finish) -> None:
    """Train all trials of a plan, print the results and the sweep's directory.

    Parameters
    ----------
    context : the command's; its options are those of `add_sweep_options`.
    plan : what is trained.
    finish : called when all trainings are complete; returns a text to print after the table.

    Raises
    ------
    UserError
        The input is wrong, or another process works on the sweep.
    FailedRun
        Some trainings have failed; the results of the others have been printed.
    Interrupted
        A signal asked to stop; the trainings are saved.
    """
    options, messages, started = context.options, context.messages, datetime.now(UTC)
    html = None if options.html is None else Path(options.html)
    if html is not None:
        require_output_file(html, "--html")
        require_plotly()
    planned = plan.record(context.command_line, options.objective, started)
    place = find_sweep(context.runs_dir, planned, started) if options.sweep_dir is None else Path(options.sweep_dir)
    directory = SweepDirectory(place)
    directory.require_free()
    check_writable(place.absolute().parent)
    if plan.axes:
        messages.say(describe_axes(plan.axes))
    from partrain.sweeps.preparation import prepare
    from partrain.sweeps.sweep import Sweep, SweepSession

    preparation = prepare(plan.configs, plan.num_trials, options.workers, options.parallel, messages)
    session = SweepSession(
        plan.config_of, preparation, options.workers, context.command_line, messages, context.interruption
    )
    failure: FailedRun | None = None
    after = ""
    with directory.locked(), contextlib.closing(preparation):
        sweep = Sweep(directory, begin(directory, planned), session)
        try:
            sweep.run()
            after = finish(sweep, session)
        except FailedRun as error:
            failure = error
    record, results = sweep.record, sweep.results
    if shown := describe_results(record, results):
        print_data(shown)
    if after:
        print_data(after)
    if html is not None:
        from partrain.analysis.html_report.sweep_page import write_sweep_page

        write_sweep_page(html, place.name, record, results)
        messages.say(f"page of the sweep: {html}")
    print_path(place)
    if failure is not None:
        raise failure
