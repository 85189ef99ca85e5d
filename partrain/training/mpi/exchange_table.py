"""What a step of a training on several ranks exchanges, as `--dry-run` prints it: known before MPI is started."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.parallel.mpi.exchange import step_bytes
from partrain.parallel.mpi.launcher import promised_ranks
from partrain.system.terminal_text import table
from partrain.training.plan import TrainingPlan

# Where no launcher says how many ranks there are.
EXAMPLES_OF_RANKS = (2, 4, 8)


def describe_exchange(plan: TrainingPlan, environment: Mapping[str, str]) -> str:
    """Return a table of the bytes that a step exchanges, for as many ranks as the launcher started.

    Parameters
    ----------
    environment : where the launcher says so.
    """
    promised = promised_ranks(environment)
    training = plan.config.training
    batch_size = min(training.batch_size, plan.dataset.train.size)
    rows = []
    for num_ranks in EXAMPLES_OF_RANKS if promised is None else (promised[1],):
        given = step_bytes(plan.network, batch_size, plan.tiling, training.dtype, num_ranks)
        rows.append((str(num_ranks), f"{min(given):,}", f"{max(given):,}", f"{sum(given):,}"))
    columns = ("ranks", "bytes of a rank, least", "most", "sum of all")
    return "\n".join(["", "exchange of a step, one Allgatherv", *table(columns, rows, num_words=0)])
