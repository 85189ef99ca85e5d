"""Where the results of a training run go: metrics and checkpoints, and when they are due."""

from __future__ import annotations

from dataclasses import dataclass

from partrain.store.run_directory import RunDirectory
from partrain.training.checkpointer import Checkpointer, StateSink
from partrain.training.logging_schedule import LoggingSchedule
from partrain.training.metrics_logger import MetricsLogger
from partrain.training.plan import TrainingPlan
from partrain.training.session import Session


@dataclass(frozen=True)
class RunOutput:
    """The output of a training run.

    Attributes
    ----------
    run : the run's directory, locked; None: this process writes no files.
    schedule : says when to log and to evaluate.
    logger : receives metrics.
    states : receives states.
    config_digest : the digest of the configuration's identity, for checkpoints.
    """

    run: RunDirectory | None
    schedule: LoggingSchedule
    logger: MetricsLogger
    states: StateSink
    config_digest: str

    @classmethod
    def of_run(
        cls,
        run: RunDirectory | None,
        plan: TrainingPlan,
        session: Session,
        config_digest: str | None = None,
        schedule: LoggingSchedule | None = None,
    ) -> RunOutput:
        """Return the output of a run that is trained: its files.

        Parameters
        ----------
        run : the run's directory, locked; None on ranks other than 0.
        plan : the plan of the training.
        session : the command that trains.
        config_digest : as for the class; None: that of the plan's configuration.
        schedule : as for the class; None: that of the plan's configuration.
        """
        logger = MetricsLogger(None if run is None else run.metrics_path, plan, session.clock, session.messages.warn)
        states = Checkpointer(
            None if run is None else run.checkpoints,
            plan.config.checkpoints,
            plan.steps_per_epoch,
            clock=session.clock,
            warn=session.messages.warn,
            require_unchanged_data=plan.dataset.require_unchanged,
            flush_metrics=logger.flush_durably,
            run_write=session.run_write,
        )
        if schedule is None:
            schedule = LoggingSchedule(plan.steps_per_epoch, [plan.logged_session(from_step=0)])
        return cls(run, schedule, logger, states, config_digest or plan.config.identity_digest())
