"""The trainings of a sweep that run side by side."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from partrain.store.sweep_directory import Trial
from partrain.sweeps.training_process import TrainingProcess
from partrain.system.messages import Messages
from partrain.system.signals import Interruption


@dataclass(frozen=True)
class EndedTraining:
    """A training that has ended.

    Attributes
    ----------
    trial : what was trained.
    exit_code : 0 if it is complete; negative if a signal killed its process.
    errors : the reasons that it gave.
    """

    trial: Trial
    exit_code: int
    errors: Sequence[str]


@dataclass
class Trainings:
    """Runs trainings, a limited number at a time.

    Parameters
    ----------
    num_at_once : how many run at a time.
    train : trains a trial, in a process of its own.
    warn : called with each warning that a training prints, once if several print the same.
    warned : warnings that have been printed already.
    """

    num_at_once: int
    train: Callable[[Trial, Messages, Interruption], object]
    warn: Callable[[str], None]
    warned: set[str] = field(default_factory=set)
    _running: list[TrainingProcess] = field(default_factory=list)

    @property
    def running(self) -> list[Trial]:
        """What is trained at this moment."""
        return [process.trial for process in self._running]

    @property
    def has_room(self) -> bool:
        """Whether one more may start."""
        return len(self._running) < self.num_at_once

    def start(self, trial: Trial) -> None:
        """Start a training.

        Raises
        ------
        ResourceError
            The limit on processes is reached.
        """
        train = self.train
        self._running.append(
            TrainingProcess(trial, lambda messages, interruption: train(trial, messages, interruption))
        )

    def stop(self, number: int, trial: Trial | None = None) -> None:
        """Send a signal to one training, or to all: they save and end."""
        for process in self._running:
            if trial is None or process.trial == trial:
                process.stop(number)

    def wait(self, timeout_s: float) -> list[EndedTraining]:
        """Wait until a training prints something or ends, at most so long; return those that have ended."""
        select.select([process.pipe for process in self._running], [], [], timeout_s)
        ended = [process for process in self._running if process.has_ended()]
        for process in self._running:
            self._report(process)
        self._running = [process for process in self._running if process not in ended]
        for process in ended:
            process.close()
        return [EndedTraining(process.trial, process.exit_code or 0, process.errors) for process in ended]

    def _report(self, process: TrainingProcess) -> None:
        for line in process.read_lines():
            if line.startswith("error: "):
                process.errors.append(line.removeprefix("error: "))
            elif (text := line.removeprefix("warning: ")) not in self.warned:
                self.warned.add(text)
                self.warn(f"{process.trial.run}: {text}")
