"""The steps that are logged and the steps after which the validation examples are evaluated.

The settings may change at each resume. A verification, which computes old steps again, must log and evaluate exactly
where the run did, so a schedule knows the settings of each session of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from partrain.config.schema.config import Logging


@dataclass(frozen=True)
class LoggedSession:
    """One session of a run: a training command, from the state that it starts with to the last step that it plans.

    Attributes
    ----------
    from_step : the step of the state that the session starts with; 0 if the run is new.
    last_step : the last step that the session would make.
    every_steps, evaluate_every_epochs, evaluate_every_steps : as in the section `logging` of the configuration.
    """

    from_step: int
    last_step: int
    every_steps: int
    evaluate_every_epochs: int | None
    evaluate_every_steps: int | None

    @classmethod
    def of(cls, from_step: int, last_step: int, settings: Logging) -> LoggedSession:
        """Return a session with these settings."""
        return cls(
            from_step, last_step, settings.every_steps, settings.evaluate_every_epochs, settings.evaluate_every_steps
        )

    def record(self) -> dict[str, Any]:
        """Return the fields that run.json keeps of a session, besides the step that it starts from."""
        return {
            "last_step": self.last_step,
            "logging": {
                "every_steps": self.every_steps,
                "evaluate_every_epochs": self.evaluate_every_epochs,
                "evaluate_every_steps": self.evaluate_every_steps,
            },
        }


class LoggingSchedule:
    """When to log and when to evaluate.

    Parameters
    ----------
    steps_per_epoch : steps per epoch.
    sessions : the sessions of the run, in the order of their start. A session replaces the steps of earlier sessions
        after the step that it starts from.
    """

    def __init__(self, steps_per_epoch: int, sessions: Sequence[LoggedSession]) -> None:
        self._steps_per_epoch, self._sessions = steps_per_epoch, sessions

    def is_logged(self, step: int) -> bool:
        """Return whether the metrics of the step's batch are logged."""
        return self.is_regular(step) or self.is_last(step)

    def is_regular(self, step: int) -> bool:
        """Return whether the step is a multiple of the logging interval: a longer run logs it, too."""
        return step % self._session(step).every_steps == 0

    def is_last(self, step: int) -> bool:
        """Return whether the step is the last one of its session."""
        return step >= self._session(step).last_step

    def is_evaluation_due(self, step: int) -> bool:
        """Return whether the step is a multiple of an evaluation interval: a longer run evaluates there, too."""
        session = self._session(step)
        epoch, steps_into_epoch = divmod(step, self._steps_per_epoch)
        if steps_into_epoch == 0 and session.evaluate_every_epochs and epoch % session.evaluate_every_epochs == 0:
            return True
        return session.evaluate_every_steps is not None and step % session.evaluate_every_steps == 0

    def _session(self, step: int) -> LoggedSession:
        return next(session for session in reversed(self._sessions) if session.from_step < max(step, 1))
