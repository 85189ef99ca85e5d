"""`python -m partrain`, and the console script `partrain`: the same program."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the program with the command line of this process; return its exit code."""
    # NumPy's BLAS makes its threads when it is imported. Nothing here uses BLAS, so that one is enough.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from partrain.interface.command_line import main as run_command_line

        return run_command_line()
    except KeyboardInterrupt:  # while the program was being imported; the command line handles later ones
        return 130


if __name__ == "__main__":
    sys.exit(main())
