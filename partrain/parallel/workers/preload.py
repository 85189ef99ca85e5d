"""Imported by the fork server alone: every worker is born with the modules and kernels that are loaded here.

The import also makes the importing process ignore signals and end with the coordinator. That comes first, because the
rest takes a second, in which the fork server does not notice that it is an orphan.
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
