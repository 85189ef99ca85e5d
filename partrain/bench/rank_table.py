"""The facts of `partrain bench --engine mpi` as tables for people."""

from __future__ import annotations

from typing import Any

from partrain.bench.host_model import LINKS
from partrain.bench.ranks import MODEL_BATCHES, MODEL_HOSTS, PHASES
from partrain.system.terminal_text import table

NOTE_ON_STEPS = """\
exchange has in it the wait for the slowest rank. Ranks on one host share its processors."""
NOTE_ON_MODEL = """\
Not measured: a model, of hosts like this one with as many workers each, from the figures above, over links with 90 % of
their nominal bandwidth and an assumed latency of 50, 25 and 3 µs. Every host makes the whole update of the parameters,
which is what more hosts do not make shorter. The model knows nothing of hosts that wait for the slowest one."""


def describe(facts: dict[str, Any]) -> str:
    """Return the tables.

    Parameters
    ----------
    facts : what `ranks.measure_ranks` returns on rank 0.
    """
    exchange, model, training = facts["exchange"], facts["model"], facts["training"]
    rows = [
        (str(rank), one["host"], str(one["workers"]), *(f"{one[f'{name}_us']:,.0f}" for name in PHASES))
        for rank, one in enumerate(facts["ranks"])
    ]
    lines = [
        f"{training['name']}: batches of {training['batch_size']} in tiles of {training['tile']}",
        "",
        "phases of a step, median µs",
        *table(("rank", "host", "workers", *PHASES), rows, num_words=2),
        NOTE_ON_STEPS,
        "",
        f"exchange of a step alone: median {exchange['median_us']:,.0f} µs, 90 % below {exchange['p90_us']:,.0f} µs, "
        f"of which copying {exchange['copying_us']:,.0f} µs",
        f"one message a rank and step: {', '.join(f'{count:,}' for count in exchange['bytes_of_ranks'])} bytes, "
        f"in all {exchange['bytes']:,}",
    ]
    for name in dict.fromkeys(row["network"] for row in model["expected"]):
        lines += ["", f"model: speed-up to expect against one host, {name}", *_model_table(model["expected"], name)]
    return "\n".join([*lines, NOTE_ON_MODEL])


def _model_table(expected: list[dict[str, Any]], network: str) -> list[str]:
    by_key = {(r["batch_size"], r["hosts"], r["link"]): r for r in expected if r["network"] == network}
    columns = ("batch", "MB a step", *(f"{hosts} at {link.name.split()[0]}" for link in LINKS for hosts in MODEL_HOSTS))
    rows = [
        (
            str(batch),
            f"{by_key[batch, 2, LINKS[0].name]['bytes'] / 1e6:,.2f}",
            *(f"{by_key[batch, hosts, link.name]['speed_up']:.1f}" for link in LINKS for hosts in MODEL_HOSTS),
        )
        for batch in MODEL_BATCHES
    ]
    return table(columns, rows, num_words=0)
