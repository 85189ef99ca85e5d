"""Imported by the fork server when it starts: what it has loaded, every worker has from birth.

For the fork server alone: it makes the process that imports it deaf to signals, and end with the coordinator. That
comes first, for the rest takes a second, in which the fork server does not look whether it is an orphan.
"""

from __future__ import annotations

import os

from partrain.system.parent_death import PARENT_VARIABLE, end_with_parent

end_with_parent(int(os.environ[PARENT_VARIABLE]))

from partrain.kernels.compiler.kernel_set import kernel_set  # noqa: E402
from partrain.kernels.compiler.options import are_cached, load  # noqa: E402
from partrain.parallel.workers import worker  # noqa: E402
from partrain.parallel.workers.fork_server import PRELOAD_VARIABLE  # noqa: E402

worker.ignore_signals()
_set_name, _, _dtype = os.environ.get(PRELOAD_VARIABLE, "").partition(":")
if _dtype and are_cached(kernel_set(_set_name).all, _dtype):
    load(kernel_set(_set_name).all, _dtype)
