"""Draws the settings that a sweep tries, with Optuna, which keeps what it has learned in an SQLite file.

Each setting is drawn by a sampler whose seed is a function of the sweep's seed and the number of the setting. So random
settings do not depend on when a sweep was interrupted; those of TPE depend on which trials had ended before, too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from partrain.errors import MissingPackage, ResourceError
from partrain.store.sweep_directory import Axis

# The name of the study in the file.
STUDY = "sweep"


def require_optuna() -> None:
    """Check that Optuna is installed.

    Raises
    ------
    MissingPackage
        It is not.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingPackage("optuna", "sweep", "--sampler")


class SettingsSampler:
    """Draws settings from the axes of a sweep.

    Parameters
    ----------
    path : the SQLite file; created if it is missing.
    axes : what is drawn.
    name : "random" or "tpe".
    seed : the seed of the draws.
    maximize : whether larger values of the objective are better.

    Raises
    ------
    ResourceError
        The file cannot be used.
    """

    def __init__(self, path: Path, axes: Sequence[Axis], name: str, seed: int, *, maximize: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._axes, self._name, self._seed = axes, name, seed
        with _reporting_errors(path):
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=STUDY,
                direction="maximize" if maximize else "minimize",
                pruner=optuna.pruners.MedianPruner(),
                load_if_exists=True,
            )
        self._path = path
        self._distributions = {axis.key: _distribution(axis) for axis in axes}

    def draw(self) -> tuple[int, dict[str, Any]]:
        """Draw new settings.

        Returns
        -------
        The number of the setting, from 1, and its values by key.
        """
        import optuna

        with _reporting_errors(self._path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that Optuna calls experimental
            number = len(self._study.get_trials(deepcopy=False))
            seed = (self._seed * 1_000_003 + number) % 2**32
            samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
            self._study.sampler = samplers[self._name](seed=seed)
            trial = self._study.ask(self._distributions)
        return trial.number + 1, self._settings_of(trial.params)

    def drawn(self) -> dict[int, dict[str, Any]]:
        """Return the settings that were drawn so far, by number; without one whose drawing was interrupted."""
        with _reporting_errors(self._path):
            trials = self._study.get_trials(deepcopy=False)
        complete = [trial for trial in trials if set(trial.params) == set(self._distributions)]
        return {trial.number + 1: self._settings_of(trial.params) for trial in complete}

    def tell(self, setting: int, value: float | None) -> None:
        """Say what a setting has reached; None: it has failed. Only the first call for a setting has an effect."""
        import optuna

        state = optuna.trial.TrialState.FAIL if value is None else None
        with _reporting_errors(self._path):
            self._study.tell(setting - 1, value, state=state, skip_if_finished=True)

    def tell_pruned(self, setting: int) -> None:
        """Say that a setting was ended early."""
        import optuna

        with _reporting_errors(self._path):
            self._study.tell(setting - 1, state=optuna.trial.TrialState.PRUNED, skip_if_finished=True)

    def is_worse(self, setting: int, curve: Sequence[float]) -> bool:
        """Return whether the validation curve of a setting is below the median of the curves so far.

        Parameters
        ----------
        setting : its number.
        curve : the objective at each evaluation so far.
        """
        with _reporting_errors(self._path):
            study = self._storage.get_study_id_from_name(STUDY)
            identity = self._storage.get_trial_id_from_study_id_trial_number(study, setting - 1)
            for place in range(len(self._storage.get_trial(identity).intermediate_values), len(curve)):
                self._storage.set_trial_intermediate_value(identity, place, curve[place])
            trial = self._storage.get_trial(identity)
            return bool(curve) and bool(self._study.pruner.prune(self._study, trial))

    def _settings_of(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that Optuna's numbers stand for."""
        return {axis.key: axis.values[drawn[axis.key]] if axis.values else drawn[axis.key] for axis in self._axes}


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.values:  # Optuna takes no lists: it draws the place of a value
        return CategoricalDistribution(range(len(axis.values)))
    low, high, is_log = axis.low, axis.high, axis.scale == "log"
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log)
    assert low is not None
    assert high is not None
    return FloatDistribution(low, high, log=is_log)


@contextlib.contextmanager
def _reporting_errors(path: Path) -> Iterator[None]:
    """Turn an error of the SQLite file into a message."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise ResourceError(f"{path}: cannot be used: {cause}. Check the file and its file system.") from error
