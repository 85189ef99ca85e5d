"""What ranks exchange in a step, and the memory for it; `--dry-run` prints both without starting MPI."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.parallel.mpi.launcher import promised_ranks, require_working_ranks
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.system.terminal_text import table
from partrain.training.mpi.owners import bytes_of_ranks, choose_owners
from partrain.training.plan import TrainingPlan

# The numbers of ranks in the table if there is no launcher; the memory plan is that of the first.
EXAMPLES_OF_RANKS = (2, 4, 8)


def planned_bytes_of_ranks(plan: TrainingPlan, environment: Mapping[str, str], num_spares: int = 0) -> dict[str, int]:
    """Return the memory that the exchange takes on a rank, by purpose; parameters as for `describe_exchange`."""
    promised = promised_ranks(environment)
    num_ranks = EXAMPLES_OF_RANKS[0] if promised is None else promised[1] - num_spares
    return bytes_of_ranks(plan, num_ranks, choose_owners(plan, num_ranks))


def describe_exchange(plan: TrainingPlan, environment: Mapping[str, str], num_spares: int = 0) -> str:
    """Return the table for the number of working ranks that the launcher started, and what its spares do.

    Parameters
    ----------
    environment : the environment variables; a launcher gives the number of ranks there.
    num_spares : how many of the ranks wait until one is needed.

    Raises
    ------
    ConfigError
        All ranks would be spares.
    """
    promised = promised_ranks(environment)
    if promised is not None:
        require_working_ranks(num_spares, promised[1])
    training = plan.config.training
    batch_size = min(training.batch_size, plan.dataset.train.size)
    rows = []
    for num_ranks in EXAMPLES_OF_RANKS if promised is None else (promised[1] - num_spares,):
        ownership = choose_owners(plan, num_ranks)
        sent = step_bytes(plan.network, batch_size, plan.tiling, training.dtype, num_ranks, ownership)
        most = max(sent, key=lambda of_rank: of_rank.total)
        parts = (most.results, most.factors, most.sums, most.parameters, most.total)
        rows.append((str(num_ranks), *(f"{part:,}" for part in parts), _described(ownership)))
    columns = ("ranks", "results", "factors", "sums", "parameters", "total", "parameters with owners")
    title = "exchange of a step: the bytes that a rank sends to all others together, at most"
    lines = ["", title, *table(columns, rows, num_words={6})]
    if num_spares:
        last = "the last rank waits" if num_spares == 1 else f"the last {num_spares} ranks wait"
        lines += ["", f"spares: {last}, with data and kernels, to work in the place of a rank that dies"]
    return "\n".join(lines)


def _described(ownership: Ownership | None) -> str:
    """Return the parameters with owners: those of which each rank updates a part, and not all ranks everything."""
    if ownership is None:
        return "none"
    if ownership.shared.is_empty:
        return "all"
    names = ["all besides dense layers"] * ownership.owned.has_slots
    return ", ".join([*names, *(layer.name for layer in ownership.owned.layers)])
