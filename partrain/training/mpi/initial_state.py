"""The state from which all ranks of an MPI job start a training run: rank 0 reads it and broadcasts it.

The other ranks read no file of the run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from partrain.config.schema.config import Config
from partrain.training.logging_schedule import LoggedSession


@dataclass(frozen=True)
class Replay:
    """Steps of a run that are computed again.

    Attributes
    ----------
    last_step : the last of them.
    sessions : the sessions of the run, which say where it logged and evaluated.
    """

    last_step: int
    sessions: tuple[LoggedSession, ...]


@dataclass(frozen=True, eq=False)
class InitialState:
    """A configuration, and the tensors that training starts from.

    Attributes
    ----------
    config : the configuration that rank 0 read.
    tensors : the tensors of the checkpoint to resume from, or the initial parameters; empty: random initial parameters.
    metadata : the metadata of the checkpoint; None if there is no checkpoint.
    replay : the steps to compute again; None: the run is trained.
    """

    config: Config
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None
    replay: Replay | None = None

    def to_bytes(self) -> bytes:
        """Return the state in the safetensors format; configuration and metadata are JSON in its header."""
        # safetensors reads raw memory, which must be in C order.
        tensors = {name: np.asarray(tensor, order="C") for name, tensor in self.tensors.items()}
        header = {
            "config": json.dumps(self.config.to_mapping()),
            "metadata": json.dumps(self.metadata),
            "replay": json.dumps(None if self.replay is None else asdict(self.replay)),
        }
        return safetensors.numpy.save(tensors, metadata=header)

    @classmethod
    def from_bytes(cls, content: bytes) -> InitialState:
        """Return the state that `to_bytes` wrote; its arrays are read-only."""
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        config = Config.model_validate(json.loads(header["config"]))
        replay = json.loads(header["replay"])
        if replay is not None:
            replay = Replay(replay["last_step"], tuple(LoggedSession(**session) for session in replay["sessions"]))
        return cls(config, safetensors.numpy.load(content), json.loads(header["metadata"]), replay)
