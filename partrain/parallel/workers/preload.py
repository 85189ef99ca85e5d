"""Imported by the fork server alone: workers inherit the modules and kernels loaded here.

The import also makes the importing process ignore signals and end with the coordinator. The signal set-up comes first:
loading takes a second, during which an orphaned fork server would go unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType

from partrain.system.parent_death import PARENT_VARIABLE, end_with_parent

end_with_parent(int(os.environ[PARENT_VARIABLE]))

from partrain.config.schema.layers import Conv, Dense, Flatten, MaxPool, Relu  # noqa: E402
from partrain.errors import ConfigError  # noqa: E402
from partrain.kernels.compiler.loading import load_cached  # noqa: E402
from partrain.network.layer_building import build_layers  # noqa: E402
from partrain.parallel.workers import worker  # noqa: E402
from partrain.parallel.workers.fork_server import MAY_NOT_FORK, PRELOAD_VARIABLE  # noqa: E402
from partrain.parallel.workers.step_examples import NO_CHANGES  # noqa: E402


def _end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, BlockingIOError):  # EAGAIN, of fork; the coordinator reports it
        os._exit(MAY_NOT_FORK)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _end_with

worker.ignore_signals()
_kernels, _, _dtype = os.environ.get(PRELOAD_VARIABLE, "").partition(":")
if _dtype:
    # The network is not known yet. This one has a convolution for each forward pass of network.stages, and
    # a ReLU after each. Few networks have other layers, and few trainings change images: their workers load those.
    _convolutions = [layer for size in (5, 5, 3) for layer in (Conv(filters=8, kernel=(size, size)), Relu())]
    _layers = build_layers((*_convolutions, MaxPool(window=(2, 2)), Flatten(), Dense(units=2)), (1, 28, 28))
    with contextlib.suppress(ConfigError):  # the coordinator reports that kernels cannot be compiled
        load_cached(worker.worker_kernels(_kernels, _layers, NO_CHANGES), _dtype)
