"""Loads every kernel that a computation may call, whatever its network."""

from __future__ import annotations

from partrain.kernels.compiler.loading import load
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d, Relu
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.mailboxes import Mailboxes
from partrain.parallel.workers.worker import worker_kernels

KINDS = (Conv2d, MaxPool2d, Relu, Flatten, Dense, Dropout)


def load_all_kernels(kernels: str, dtype: str) -> None:
    """Load the kernels of workers and of the coordinator; `kernels` is "fast" or "loops"."""
    of_workers = worker_kernels(kernels, KINDS, augments=True)
    load((*of_workers, *ParameterUpdate.kernels(kernels), *Mailboxes.KERNELS), dtype)
