"""Trains a network without a run: nothing is written, and the caller gets the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.training.coordinator import Coordinator
from partrain.training.privacy.settings import NOT_PRIVATE, is_seeded
from partrain.training.resources import training_resources
from partrain.training.run_output import RunOutput
from partrain.training.session import Session


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network and the parameters that were trained.

    Attributes
    ----------
    config : the resolved configuration.
    network : the network.
    normalisation : the normalisation of the images.
    parameters : its vector of parameters, in the configuration's dtype.
    """

    config: Config
    network: Network
    normalisation: Normalisation
    parameters: NDArray[Any]


def train_network(config: Config, dataset: Dataset, session: Session) -> TrainedNetwork:
    """Train a network to the bits of a run with this configuration.

    Parameters
    ----------
    config : the configuration.
    dataset : the data set, in memory. Its test split is not used, and may be empty.
    session : the command that trains, without MPI.

    Raises
    ------
    UserError
        The input is wrong.
    FailedRun
        A value is not finite, or the workers failed.
    Interrupted
        A signal asked to stop; nothing is kept.

    Side effects
    ------------
    While it trains, processes and shared memory.
    """
    with training_resources(config, None, session, lambda plan: None, dataset) as resources:
        plan = resources.plan
        if is_seeded(plan.config.training):
            session.messages.warn(NOT_PRIVATE)
        coordinator = Coordinator(resources, session, RunOutput.of_run(None, plan, session))
        coordinator.train()
        session.interruption.check()
        parameters = resources.arrays["parameters"].copy()
    return TrainedNetwork(plan.config, plan.network, plan.normalisation, parameters)
