from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import partrain
from partrain.kernels.compiler.cache import CACHE_VARIABLE

ROOT = Path(partrain.__file__).parents[1]

TINY_KERNEL = """
from partrain.kernels.compiler.flags import kernel

@kernel("void({float}[::1])")
def double(values):
    for k in range(values.size):
        values[k] *= 2
"""

# Says what was announced and warned of, whether it came from the cache, and what the kernel computes.
USE_TINY_KERNEL = """
import sys
import numpy as np
from partrain.kernels.compiler.loading import load
from tiny import double

def say(kind):
    return lambda text: print(kind, text)

for dtype in sys.argv[1:] or ["float32"]:
    was_not_there = load([double], dtype, announce=say("announced:"), warn=say("warned:"))
    values = np.arange(3, dtype=dtype)
    double(values)
    print(values.tolist(), "compiled" if was_not_there else "cached")
"""

FRESH = "announced: compiling kernels, first run only\n[0.0, 2.0, 4.0] compiled\n"
CACHED = "[0.0, 2.0, 4.0] cached\n"


def start(code, *arguments, sources, folder, root=ROOT, **variables):
    """Start a Python that finds partrain in `root` and `tiny` in `sources`; its cache is `folder`/cache."""
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE} | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join((str(root), str(sources))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment | variables,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process):
    """Wait for the end of `process`; return what it printed, which must be all of it good."""
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
    return stdout


def run(code, *arguments, **options):
    return output_of(start(code, *arguments, **options))


def kernel_folder(folder):
    """Return the one folder of the cache."""
    (found,) = (folder / "cache" / "partrain" / "kernels").iterdir()
    return found
