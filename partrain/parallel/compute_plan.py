"""The plan of a computation: its network, data, shared arrays and memory. This module does not import Numba."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from partrain.config.schema.training import Training
from partrain.data.dataset import Split
from partrain.data.split_name import SplitName
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.memory_plan import INTERPRETERS, TEMPORARY, memory_of_processes
from partrain.parallel.shared_splits import plan_splits, shared_parts
from partrain.system.shared_arrays import ArraySpec, MappedFile, SharedArrays, SharedPart, total_bytes


@dataclass(frozen=True, eq=False)
class ComputePlan:
    """A checked computation, for which no process has started yet.

    Attributes
    ----------
    purpose : the name of the computation in messages, such as "the training" or "the evaluation".
    network : the network.
    normalisation : turns pixels into the network's inputs.
    training : the configuration's section; gives kernels, dtype, tile, clipping and augmentation.
    splits : the data for the shared arrays, by name.
    exchange : the shared arrays besides the data.
    own_bytes : private memory of this process, by purpose.
    temporary_bytes : private memory of this process that it needs only for a while, during the computation or after it.
    trains : whether the network is trained; otherwise it is only evaluated.
    class_weights : weight of each class in the loss; None: all weights are 1.
    seed : the seed of augmentation and dropout.
    shared : the shared memory that has the data, or a part of it, already; None: there is none.
    """

    purpose: str
    network: Network
    training: Training
    normalisation: Normalisation
    splits: Mapping[SplitName, Split]
    exchange: Mapping[str, ArraySpec]
    own_bytes: Mapping[str, int] = field(default_factory=dict)
    temporary_bytes: int = 0
    trains: bool = False
    class_weights: tuple[float, ...] | None = None
    seed: int = 0
    shared: SharedArrays | None = None

    @cached_property
    def groups(self) -> ParameterGroups:
        """The groups of the parameters in a training."""
        return ParameterGroups.of(self.network, self.training.optimizer)

    def arrays(self) -> tuple[dict[str, ArraySpec], dict[str, MappedFile]]:
        """Return the shared arrays to allocate, and the arrays that are mapped from files."""
        specs, files = plan_splits(self.splits, self.shared)
        return {**self.exchange, **specs}, files

    def parts(self) -> dict[str, SharedPart]:
        """Return the arrays of the data that are in shared memory already."""
        return shared_parts(self.splits, self.shared)

    def memory(self, num_workers: int) -> dict[str, int]:
        """Return the bytes of memory that the computation needs at its peak, by purpose."""
        data = total_bytes(plan_splits(self.splits, self.shared)[0])
        processes = memory_of_processes(self.training, self.network, num_workers)
        # While the data is copied into shared memory, it is there twice, and most of the rest not yet.
        later = sum(self.own_bytes.values()) + sum(processes.values()) - processes[INTERPRETERS]
        return {
            "data set": data,
            "parameters and exchange": total_bytes(self.exchange),
            **self.own_bytes,
            **processes,
            TEMPORARY: max(self.temporary_bytes, data - later),
        }
