"""Imported by the fork server when it starts: what it has loaded, every worker has from birth.

For the fork server alone: it makes the process that imports it deaf to signals, and end with the coordinator. That
comes first, for the rest takes a second, in which the fork server does not look whether it is an orphan.
"""

from __future__ import annotations

import os

from partrain.system.parent_death import PARENT_VARIABLE, end_with_parent

end_with_parent(int(os.environ[PARENT_VARIABLE]))

from partrain.kernels.compiler.loading import load_cached  # noqa: E402
from partrain.network.layers import Conv2d, Dense, Flatten, MaxPool2d, Relu  # noqa: E402
from partrain.parallel.workers import worker  # noqa: E402
from partrain.parallel.workers.fork_server import PRELOAD_VARIABLE  # noqa: E402

worker.ignore_signals()
_kernels, _, _dtype = os.environ.get(PRELOAD_VARIABLE, "").partition(":")
if _dtype:
    # The network is not known yet. Few networks have dropout or augmentation: their workers load those kernels.
    load_cached(worker.worker_kernels(_kernels, (Conv2d, MaxPool2d, Relu, Flatten, Dense), augments=False), _dtype)
