"""Finds the first steps of a run that give other results, without computing all of its steps again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from partrain.data.dataset import Dataset
from partrain.errors import RunError, VerificationFailed
from partrain.store.run_directory import RunDirectory
from partrain.store.run_paths import step_of_checkpoint_file
from partrain.training.session import Session
from partrain.training.verification.verification import StepRange, verify_run


@dataclass(frozen=True)
class Search:
    """A search that found nothing wrong.

    Attributes
    ----------
    run : the run's directory.
    num_ranges : how many ranges of steps the run's checkpoints make.
    verified : the ranges that were computed again: the step before the first, and the last.
    """

    run: Path
    num_ranges: int
    verified: list[tuple[int, int]]

    def describe(self) -> str:
        """Return the result as one line of text."""
        ranges = ", ".join(f"{first + 1:,} to {last:,}" for first, last in self.verified)
        found = (
            f"found nothing wrong: computed {len(self.verified)} of {self.num_ranges} ranges of steps again ({ranges})"
            ": same bits"
        )
        if len(self.verified) == self.num_ranges:
            return found
        return f"{found}; a single wrong range among the others can escape; --all computes every step"


def find_first_wrong(
    path: Path, last: int | None, session: Session, *, data_path: str | None = None, dataset: Dataset | None = None
) -> Search:
    """Find the first range of steps between two checkpoints that gives other results than the run has.

    The search is a bisection: it computes at most log2(n) + 1 of n ranges again. It takes for granted that the steps
    after the first wrong ones are wrong, too, as they are if a run went on with other data, another program or a broken
    machine. A single wrong range between right ones can escape it; `verify_run` from step 0 finds that.

    Parameters
    ----------
    path : the run's directory. Nothing is written there.
    last : the last step to consider, of a checkpoint; None: that of the newest checkpoint.
    session, data_path, dataset : as for `verify_run`.

    Raises
    ------
    VerificationFailed
        Steps give other results; the message names the first of them and the first value that differs.
    UserError, Interrupted
        As `verify_run`.
    """
    saved = [step for step in _saved_steps(path) if last is None or step <= last]
    if not saved:
        raise RunError(f"{path}: has no checkpoint" + ("" if last is None else f" up to step {last:,}"))
    bounds = saved if saved[0] == 0 else [0, *saved]
    verified: list[tuple[int, int]] = []
    failure: VerificationFailed | None = None
    first, end = 0, len(bounds) - 1  # the first wrong range is one of first..end-1, or there is none
    while first < end:
        middle = (first + end) // 2
        steps = StepRange(bounds[middle], bounds[middle + 1])
        try:
            verify_run(path, steps, session, data_path=data_path, dataset=dataset)
            verified.append((bounds[middle], bounds[middle + 1]))
            first = middle + 1
        except VerificationFailed as error:
            if error.steps is None:
                raise
            failure, end = VerificationFailed(f"{_describe(*error.steps)}: {error}", error.steps), middle
    if failure is not None:
        raise failure
    return Search(path, len(bounds) - 1, sorted(verified))


def _saved_steps(path: Path) -> list[int]:
    directory = RunDirectory.open(path).checkpoints
    return [step for file in directory.files() if (step := step_of_checkpoint_file(file.name)) is not None]


def _describe(right: int, wrong: int) -> str:
    if wrong <= right:  # the digest of the parameters in metrics.jsonl is right
        return f"the steps to {right:,} are right, but not what was saved after them"
    if wrong == right + 1:
        return f"the first wrong step is {wrong:,}"
    return f"the first wrong step is one of {right + 1:,} to {wrong:,}"
