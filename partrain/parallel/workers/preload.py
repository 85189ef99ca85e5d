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

from partrain.errors import ConfigError  # noqa: E402
from partrain.kernels.compiler.loading import load_cached  # noqa: E402
from partrain.network.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d, Relu  # noqa: E402
from partrain.network.parameters import Parameter  # noqa: E402
from partrain.parallel.workers import worker  # noqa: E402
from partrain.parallel.workers.fork_server import MAY_NOT_FORK, PRELOAD_VARIABLE  # noqa: E402
from partrain.parallel.workers.step_examples import NO_CHANGES  # noqa: E402


def _end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, BlockingIOError):  # EAGAIN, of fork; the coordinator reports it
        os._exit(MAY_NOT_FORK)
    sys.__excepthook__(kind, error, trace)


def _typical_layers() -> tuple[Layer, ...]:
    """Return layers whose kernels most networks call: the network is not known yet.

    There is a convolution for each forward pass of network.stages, with narrow and with wide vectors, and a ReLU after
    each. Few networks have other layers, and few trainings change images: their workers load those.
    """
    layers: list[Layer] = []
    for F in (8, 16):
        C, H, W = 1, 28, 28
        for size in (5, 5, 3):
            output = F, H - size + 1, W - size + 1
            parameters = Parameter("", (F, C, size, size), 0.0), Parameter("", (F,), 0.0)
            layers += [Conv2d("", (C, H, W), output, parameters), Relu("", output, output)]
            C, H, W = output
    pooled, num = (C, H // 2, W // 2), C * (H // 2) * (W // 2)
    layers += [MaxPool2d("", (C, H, W), pooled), Flatten("", pooled, (num,)), Dense("", (num,), (2,))]
    return tuple(layers)


sys.excepthook = _end_with

worker.ignore_signals()
_kernels, _, _dtype = os.environ.get(PRELOAD_VARIABLE, "").partition(":")
if _dtype:
    with contextlib.suppress(ConfigError):  # the coordinator reports that kernels cannot be compiled
        load_cached(worker.worker_kernels(_kernels, _typical_layers(), NO_CHANGES), _dtype)
