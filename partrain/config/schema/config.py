"""The whole configuration, and its sections `logging`, `checkpoints` and `workers`."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from partrain.config.identity import identity_digest, identity_of
from partrain.config.schema.data import Data
from partrain.config.schema.layer_entries import LayerEntry, every_entry
from partrain.config.schema.normalisation_layers import BatchNorm
from partrain.config.schema.training import Training
from partrain.config.schema.values import NonNegativeInt, PositiveInt, Section
from partrain.config.yaml_writer import dump_yaml


class Logging(Section):
    """How often the run is measured, whether it draws plots, and whether it writes TensorBoard events."""

    every_steps: PositiveInt = Field(10, description="The interval between logged metrics, in steps.")
    evaluate_every_epochs: PositiveInt | None = Field(
        1,
        description="The interval between evaluations on the validation examples, in epochs. The end is always "
        "evaluated. null: no evaluation at the ends of epochs.",
    )
    evaluate_every_steps: PositiveInt | None = Field(
        None, description="An interval between further evaluations, in steps. null: no further evaluations."
    )
    plots: bool = Field(True, description="Draw plots at the end, if matplotlib is installed.")
    tensorboard: bool = Field(
        False,
        description="Write TensorBoard events into the run's directory `tensorboard` while it trains: metrics and "
        "configuration, at the end test results and plots. Needs the extra `export`.",
    )


class Checkpoints(Section):
    """How often the run is saved, and which checkpoints are kept."""

    every_steps: PositiveInt | None = Field(
        500,
        description="The interval between checkpoints, in steps; the end of each epoch is always saved. null: only "
        "the ends of epochs.",
    )
    keep_last: PositiveInt = Field(2, description="The number of newest checkpoints to keep.")
    keep_best: bool = Field(
        True,
        description="Keep the checkpoint with the highest validation accuracy as well; of equal ones, the earliest.",
    )
    digests: PositiveInt | None = Field(
        None,
        description="An interval, in steps, at which the digest of the parameters is written to metrics.jsonl; "
        "`partrain verify` then names the first wrong steps more precisely. null: none.",
    )


class Workers(Section):
    """How the worker processes are supervised; `--workers` says how many there are."""

    max_restarts: NonNegativeInt = Field(
        8, description="How many dead or hung workers are replaced. When one more dies, the run is saved and fails."
    )


class Config(Section):
    """A whole configuration."""

    format: Literal[1] = Field(1, description="The version of the configuration's format.")
    name: str = Field("run", description="The name of the run; it ends the name of the run's directory.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0,
        description="The seed of everything random: initial parameters, order of the examples, label noise, "
        "augmentation, dropout.",
    )
    data: Data
    network: Annotated[list[LayerEntry], Field(min_length=1)] = Field(
        description="The layers, in order, e.g. `[flatten, dense: {units: 10}]`. Softmax and cross-entropy are added "
        "automatically. `--set network.N…` changes the layer number N, counted from 0."
    )
    training: Training = Training()
    logging: Logging = Logging()
    checkpoints: Checkpoints = Checkpoints()
    workers: Workers = Workers()

    def checks(self) -> Iterable[Iterator[str]]:
        yield self._problems_of_evaluations()
        yield self._problems_of_tile()
        for name in ("training.per_example.clip", "training.per_example.statistics", "training.privacy"):
            yield self._problems_of_single_examples(name)

    def _problems_of_evaluations(self) -> Iterator[str]:
        logging = self.logging
        needs = self.training.needs_evaluations
        if needs and not (logging.evaluate_every_epochs or logging.evaluate_every_steps):
            yield (
                f"{needs} needs evaluations during training; "
                "set logging.evaluate_every_epochs or logging.evaluate_every_steps"
            )

    def _problems_of_tile(self) -> Iterator[str]:
        if self._has_batch_norm and self.training.tile == 1:
            yield (
                "training.tile: batch_norm needs the statistics of more than one example; set it to 2 or more, or use "
                "group_norm"
            )

    def _problems_of_single_examples(self, name: str) -> Iterator[str]:
        if self._has_batch_norm and operator.attrgetter(name)(self) not in (None, False):
            yield (
                f"{name} needs gradients of single examples, which do not exist with batch_norm, because it normalises "
                "by the statistics of a tile; use group_norm"
            )

    @property
    def _has_batch_norm(self) -> bool:
        return any(isinstance(entry, BatchNorm) for entry in every_entry(self.network))

    def to_mapping(self) -> dict[str, Any]:
        """Return the configuration as plain containers; `parse_config` turns them back into an equal one."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the configuration as a YAML document."""
        return dump_yaml(self.to_mapping())

    def identity(self) -> dict[str, Any]:
        """Return the part of the configuration that decides the results; see `config.identity`."""
        return identity_of(self.to_mapping())

    def identity_digest(self) -> str:
        """Return the SHA-256 of the identity, in hexadecimal."""
        return identity_digest(self.identity())
