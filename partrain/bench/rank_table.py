"""Text tables of the results of `partrain bench --engine mpi`."""

from __future__ import annotations

from typing import Any

from partrain.bench.host_model import LINKS
from partrain.bench.ranks import MODEL_BATCHES, MODEL_HOSTS, PHASES
from partrain.system.terminal_text import table

NOTE_ON_STEPS = """\
sums: of this rank's gradients for their owners, and of what it owns; 0 if each rank makes the whole update.
exchange includes the wait for the slowest rank. Ranks on the same host share its processors."""
NOTE_ON_MODEL = """\
Not measured: a prediction from these times, for hosts like this one with the same number of workers each. More tiles
take longer in proportion. It assumes 90 % of the nominal bandwidth of each link, a latency of 50, 25 and 3 µs, and 2 µs
for each message. The model ignores the time that hosts wait for the slowest host."""


def describe(facts: dict[str, Any]) -> str:
    """Return the tables.

    Parameters
    ----------
    facts : the result of `ranks.measure_ranks` on rank 0.
    """
    exchange, model, training = facts["exchange"], facts["model"], facts["training"]
    rows = [
        (str(rank), row["host"], str(row["workers"]), *(f"{row[f'{name}_us']:,.0f}" for name in PHASES))
        for rank, row in enumerate(facts["ranks"])
    ]
    lines = [
        f"{training['name']}: batches of {training['batch_size']} in tiles of {training['tile']}",
        "",
        "phases of a step, median µs",
        *table(("rank", "host", "workers", *PHASES), rows, num_words=2),
        NOTE_ON_STEPS,
        "",
        f"exchange alone, per step: median {exchange['median_us']:,.0f} µs, 90th percentile "
        f"{exchange['p90_us']:,.0f} µs; by message {' + '.join(f'{us:,.0f}' for us in exchange['by_message_us'])} µs",
        "",
        "bytes that a rank sends in a step to all others together",
        *table(
            ("rank", *exchange["bytes_of_ranks"][0]),
            [
                (str(rank), *(f"{count:,}" for count in of_rank.values()))
                for rank, of_rank in enumerate(exchange["bytes_of_ranks"])
            ],
            num_words=0,
        ),
    ]
    for name in dict.fromkeys(row["network"] for row in model["expected"]):
        lines += ["", f"model: expected speed-up against one host, {name}", *_model_table(model["expected"], name)]
    return "\n".join([*lines, "", *_inputs(model), NOTE_ON_MODEL])


def _inputs(model: dict[str, Any]) -> list[str]:
    compute, update = (
        ", ".join(f"{tiles}: {us:,.0f}" for tiles, us in model[name].items()) for name in ("compute_us", "update_us")
    )
    return [
        "times in the model, µs; measured on rank 0, while the other ranks sleep",
        f"computing, by number of tiles  {compute}",
        f"update, by number of tiles     {update}",
        f"preparing a step               {model['serial_us']:,.0f}",
        f"copying 1 MB                   {model['copy_ns_per_byte'] * 1000:,.0f}",
    ]


def _model_table(expected: list[dict[str, Any]], network: str) -> list[str]:
    by_key = {(r["batch_size"], r["hosts"], r["link"]): r for r in expected if r["network"] == network}
    columns = (
        "batch",
        "MB per host",
        *(f"{hosts} at {link.name.split()[0]}" for link in LINKS for hosts in MODEL_HOSTS),
    )
    rows = [
        (
            str(batch),
            f"{by_key[batch, 2, LINKS[0].name]['bytes'] / 1e6:,.2f}",
            *(f"{by_key[batch, hosts, link.name]['speed_up']:.1f}" for link in LINKS for hosts in MODEL_HOSTS),
        )
        for batch in MODEL_BATCHES
    ]
    return table(columns, rows, num_words=0)
