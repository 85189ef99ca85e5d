"""The entry point of `python -m partrain` and of the console script `partrain`."""

from __future__ import annotations

import os
import sys

from partrain.system.signals import exit_at_signals, ignore_signals


def main() -> int:
    """Run the command line of this process; return the exit code. No signal interrupts what is left to do then."""
    # NumPy's BLAS creates its threads when NumPy is imported. partrain does not use BLAS, so one thread is enough.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    exit_at_signals()
    from partrain.system.standard_streams import prepare_standard_streams

    prepare_standard_streams()
    from partrain.interface.command_line import main as run_command_line

    try:
        return run_command_line()
    finally:
        ignore_signals()


if __name__ == "__main__":
    sys.exit(main())
