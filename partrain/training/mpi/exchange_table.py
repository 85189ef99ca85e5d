"""The table of bytes that ranks exchange in a step; `--dry-run` prints it without starting MPI."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.parallel.mpi.exchange import step_bytes
from partrain.parallel.mpi.launcher import promised_ranks
from partrain.system.terminal_text import table
from partrain.training.plan import TrainingPlan

# The numbers of ranks in the table if there is no launcher.
EXAMPLES_OF_RANKS = (2, 4, 8)


def describe_exchange(plan: TrainingPlan, environment: Mapping[str, str]) -> str:
    """Return the table for the number of ranks that the launcher started.

    Parameters
    ----------
    environment : the environment variables; a launcher gives the number of ranks there.
    """
    promised = promised_ranks(environment)
    training = plan.config.training
    batch_size = min(training.batch_size, plan.dataset.train.size)
    rows = []
    for num_ranks in EXAMPLES_OF_RANKS if promised is None else (promised[1],):
        num_bytes = step_bytes(plan.network, batch_size, plan.tiling, training.dtype, num_ranks)
        rows.append((str(num_ranks), f"{min(num_bytes):,}", f"{max(num_bytes):,}", f"{sum(num_bytes):,}"))
    columns = ("ranks", "bytes of a rank, least", "most", "sum of all")
    return "\n".join(["", "exchange of a step, one Allgatherv", *table(columns, rows, num_words=0)])
