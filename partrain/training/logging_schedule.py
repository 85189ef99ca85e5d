"""The steps that are logged and the steps after which the validation examples are evaluated.

The settings may change at each resume. A verification, which computes old steps again, must log and evaluate exactly
where the run did, so a schedule knows the settings of each session of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from partrain.config.schema.config import Config


@dataclass(frozen=True)
class LoggedSession:
    """One session of a run: a training command, from the state that it starts with to the last step that it plans.

    Attributes
    ----------
    from_step : the step of the state that the session starts with; 0 if the run is new.
    last_step : the last step that the session would make.
    every_steps, evaluate_every_epochs, evaluate_every_steps : as in the section `logging` of the configuration.
    digests : as in the section `checkpoints`.
    """

    from_step: int
    last_step: int
    every_steps: int
    evaluate_every_epochs: int | None
    evaluate_every_steps: int | None
    digests: int | None

    @classmethod
    def of(cls, from_step: int, last_step: int, config: Config) -> LoggedSession:
        """Return a session with the settings of a configuration."""
        logging = config.logging
        return cls(
            from_step,
            last_step,
            logging.every_steps,
            logging.evaluate_every_epochs,
            logging.evaluate_every_steps,
            config.checkpoints.digests,
        )

    @classmethod
    def read(cls, from_step: int, record: Mapping[str, Any], default: LoggedSession) -> LoggedSession:
        """Return the session that run.json records; `default` is that of a partrain that recorded no settings."""
        if "logged" not in record:
            return replace(default, from_step=from_step)
        return cls(from_step, **record["logged"])

    def record(self) -> dict[str, Any]:
        """Return the fields of a session in run.json, besides the step that it starts from."""
        return {"logged": {name: value for name, value in asdict(self).items() if name != "from_step"}}


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
        self._find(1)

    def is_logged(self, step: int) -> bool:
        """Return whether the metrics of the step's batch are logged."""
        return self.is_regular(step) or self.is_last(step)

    def is_regular(self, step: int) -> bool:
        """Return whether the step is a multiple of the logging interval: a longer run logs it, too."""
        return step % self._session(step).every_steps == 0

    def is_last(self, step: int) -> bool:
        """Return whether the step is the last one of its session."""
        return step >= self._session(step).last_step

    def is_digested(self, step: int) -> bool:
        """Return whether the digest of the parameters is logged."""
        digests = self._session(step).digests
        return digests is not None and step % digests == 0

    def is_evaluation_due(self, step: int) -> bool:
        """Return whether the step is a multiple of an evaluation interval: a longer run evaluates there, too."""
        session = self._session(step)
        epoch, steps_into_epoch = divmod(step, self._steps_per_epoch)
        if steps_into_epoch == 0 and session.evaluate_every_epochs and epoch % session.evaluate_every_epochs == 0:
            return True
        return session.evaluate_every_steps is not None and step % session.evaluate_every_steps == 0

    def _session(self, step: int) -> LoggedSession:
        # Asked several times in each step, nearly always for the session that was found before.
        if not self._first <= step <= self._last:
            self._find(max(step, 1))
        return self._found

    def _find(self, step: int) -> None:
        """Find the session of a step, and the steps to which it belongs."""
        later = []
        for session in reversed(self._sessions):
            if session.from_step < step:
                break
            later.append(session.from_step)
        self._found, self._first, self._last = session, session.from_step + 1, min(later, default=math.inf)
