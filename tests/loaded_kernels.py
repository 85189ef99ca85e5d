"""Loads every kernel that a computation may call, whatever its network."""

from __future__ import annotations

from partrain.config.schema.activations import Gelu, LeakyRelu, Sigmoid, Silu, Tanh
from partrain.config.schema.augmentation import Augment, Cutmix, Mixup
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import AvgPool, Conv, Dense, Dropout, Flatten, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm, LayerNorm
from partrain.kernels import plane_convolution
from partrain.kernels.compiler.loading import load
from partrain.kernels.lanes import NARROW, with_lanes
from partrain.kernels.simd.vectors import LANES
from partrain.kernels.update_rules import Rule
from partrain.network.network import Network
from partrain.parallel.mpi.copies import Copies
from partrain.parallel.mpi.owner_messages import FirstMessage
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.mailboxes import Mailboxes
from partrain.parallel.workers.planned_steps import StepRing
from partrain.parallel.workers.step_examples import ExampleChanges
from partrain.parallel.workers.worker import worker_kernels

ACTIVATIONS = (LeakyRelu(), Gelu(), Gelu(approximate="tanh"), Silu(), Tanh(), Sigmoid())
# A network with a layer of each kind, and a convolution for each forward pass (network.stages.convolution_passes).
EVERYTHING = Network(
    (
        *(Conv(filters=8, kernel=5), Relu(), Conv(filters=8, kernel=5), Conv(filters=8, kernel=[3, 5])),
        *(Conv(filters=8, kernel=3), Relu()),
        *(Conv(filters=16, kernel=3, padding=1), Conv(filters=16, kernel=3, padding=1)),
        *(Conv(filters=8, kernel=3, groups=2), Conv(filters=8, kernel=1, groups=8)),
        *(AvgPool(window=1), MaxPool(window=2), Relu(), Residual(body=[Relu()])),
        *(GroupNorm(groups=4), LayerNorm(), BatchNorm(), *ACTIVATIONS),
        *(Flatten(), Dropout(rate=0.1), Dense(units=2)),
    ),
    (1, 28, 28),
    2,
)

# The files of the kernels that convolutions call in both versions (network.stages.vector_lanes).
IN_BOTH_VERSIONS = {
    *("convolution", "convolution_backward", "convolution_weights", "max_pool", "patch_vectors", "plane_convolution"),
    *("tap_convolution", "toom_cook_convolution", "toom_cook_convolution_1d"),
}

ALL_CHANGES = ExampleChanges(Augment(scale=0.1, flip="both"), Mixup(alpha=1.0), Cutmix(alpha=1.0), label_smoothing=0.1)


def load_all_kernels(kernels: str, dtype: str) -> None:
    """Load the kernels of workers and of the coordinator; `kernels` is "fast" or "loops"."""
    of_workers = [*worker_kernels(kernels, EVERYTHING.layers, ALL_CHANGES)]
    if kernels == "fast":
        of_workers.append(plane_convolution.conv2d_pooled_forward)
    for kernel in tuple(of_workers):
        if kernel.__module__.rpartition(".")[2] in IN_BOTH_VERSIONS:
            of_workers += (with_lanes(kernel, lanes) for lanes in (LANES, NARROW))
    of_update = (kernel for rule in Rule for kernel in ParameterUpdate.kernels(kernels, frozenset([rule])))
    of_ranks = (*NodeSums.kernels(kernels), *FirstMessage.KERNELS, *Copies.KERNELS)
    of_coordinator = (*of_update, *of_ranks, *StepRing.KERNELS, *Mailboxes.KERNELS)
    load((*of_workers, *of_coordinator), dtype)
