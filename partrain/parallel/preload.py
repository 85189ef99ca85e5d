"""Imported by the fork server when it starts: what it has loaded, every worker has from birth.

For the fork server alone: it makes the process that imports it deaf to signals.
"""

from __future__ import annotations

import os

from partrain.kernels.compile_options import load
from partrain.kernels.kernel_set import kernel_set
from partrain.parallel import worker

worker.ignore_signals()
_set_name, _, _dtype = os.environ.get(worker.PRELOAD_VARIABLE, "").partition(":")
if _dtype:
    load(kernel_set(_set_name).all, _dtype)
