"""Text tables of the results of `partrain bench`."""

from __future__ import annotations

from typing import Any

from partrain.system.terminal_text import table

NOTE_ON_STAGES = """\
A multiply-add counts as two operations. Skipped multiply-adds count too: the backward passes and the update skip
gradients that are zero, and Toom-Cook convolutions need fewer, so their share of the peak can exceed 100 %. The update
computes the gradients of dense layers, adds up the tile sums, checks for values that are not finite, and applies
Adam."""
# The table of kernels has those that take at least this share of the time.
LEAST_SHARE = 0.005
NOTE_ON_KERNELS = f"""\
A kernel is a function in partrain/kernels. Those below {LEAST_SHARE:.1%} are left out."""
NOTE_ON_PHASES = """\
compute is the time of the longest shard in this process. wait is the additional time with workers: to wake them, to
collect their answers, and to fetch data that other processors wrote. More workers than processors take turns."""
NOTE_ON_SERIES = """\
Workers make these steps by themselves; the first worker measures. wait is for the other workers. settle is the rest of
the step: to meet again. plan and log are the coordinator's processor time for a step, beside the workers' and not in
the sum."""
NOTE_ON_MODEL = """\
Not measured: a prediction for more cores like these, from the phases above. It ignores memory bandwidth, shared caches,
and lower clock rates when all cores are busy."""


def describe(facts: dict[str, Any]) -> str:
    """Return the tables.

    Parameters
    ----------
    facts : the result of `measurement.measure`.
    """
    machine, training = facts["machine"], facts["training"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return "\n".join(
        [
            f"{machine['processor']}, {machine['processors_available']} of {machine['processors']} processors",
            versions,
            f"vectors of {machine['lanes']} float32; measured peak of a core: {machine['peak_gflops']:.1f} GFLOP/s",
            f"{training['name']} on {training['data']}: {training['parameters']:,} parameters, "
            f"{training['multiply_adds']:,} multiply-adds forward, batches of {training['batch_size']} in tiles of "
            f"{training['tile']}, {training['kernels']} kernels in {training['dtype']}",
            "",
            "stages, on one core",
            *table(
                ("stage", "pass", "per", "median µs", "minimum µs", "GFLOP/s", "of the peak"),
                [_stage_row(stage) for stage in facts["stages"]],
                num_words=3,
            ),
            NOTE_ON_STAGES,
            "",
            *_describe_kernels(facts["kernels"]),
            *_describe_phases(facts, by_workers=False, title="phases of a step, median µs", note=NOTE_ON_PHASES),
            *_describe_phases(
                facts, by_workers=True, title="phases of a step by workers alone, median µs", note=NOTE_ON_SERIES
            ),
            "scaling",
            *table(
                ("workers", "tiles per worker", "examples/s", "speed-up"),
                [
                    (
                        str(row["workers"]),
                        " to ".join(str(tiles) for tiles in dict.fromkeys(row["tiles_per_worker"])),
                        f"{row['examples_per_s']:,.0f}",
                        f"{row['speed_up']:.2f}",
                    )
                    for row in facts["scaling"]
                ],
                num_words=0,
            ),
            "",
            *_describe_model(facts["model"]),
            NOTE_ON_MODEL,
        ]
    )


def _describe_kernels(kernels: list[dict[str, Any]]) -> list[str]:
    """Return the table of the kernels that take longest; nothing for the plain loops."""
    rows = [
        (row["kernel"], row["pass"], str(row["calls"]), _number(row["median_us"]), f"{row['share']:.1%}")
        for row in kernels
        if row["share"] >= LEAST_SHARE
    ]
    if not rows:
        return []
    columns = ("kernel", "pass", "calls", "µs per example", "share")
    return ["kernels of these stages, all calls together", *table(columns, rows, num_words=2), NOTE_ON_KERNELS, ""]


def _describe_phases(facts: dict[str, Any], *, by_workers: bool, title: str, note: str) -> list[str]:
    """Return the table of the steps that workers make by themselves, or of the other ones; nothing without such."""
    rows = [row for row in facts["phases"] if row["by_workers"] == by_workers]
    # Without workers, nothing is dispatched.
    columns = list(dict.fromkeys(name for row in rows[::-1] for name in row if name.endswith("_us")))
    columns = [name for name in columns if name != "wake_us"]
    if not rows:
        return []
    return [
        title,
        *table(
            ("workers", *(name.removesuffix("_us") for name in columns)),
            [(str(row["workers"]), *(_number(row.get(name, 0.0)) for name in columns)) for row in rows],
            num_words=0,
        ),
        note,
        "",
    ]


def _describe_model(model: dict[str, Any]) -> list[str]:
    """Return the table of expected speed-ups, and the measured times that the model uses."""
    return [
        "model: expected speed-up against one worker",
        *table(
            ("batch", *(f"{cores} cores" for cores in _distinct(model, "cores"))),
            [
                (
                    str(batch_size),
                    *(f"{row['speed_up']:.2f}" for row in model["expected"] if row["batch_size"] == batch_size),
                )
                for batch_size in _distinct(model, "batch_size")
            ],
            num_words=0,
        ),
        f"µs per step: {model['serial_us']:.0f} of the coordinator",
        "µs of signals between processes, by number of workers: " + _costs(model["signals_us"]),
        "µs of the update with one thread, by batch size: " + _costs(model["update_us"]),
        "µs of a worker, by number of tiles: " + _costs(model["shard_us"]),
    ]


def _costs(microseconds: dict[str, float]) -> str:
    return ", ".join(f"{key}: {us:,.0f}" for key, us in microseconds.items())


def _distinct(model: dict[str, Any], key: str) -> list[int]:
    return list(dict.fromkeys(row[key] for row in model["expected"]))


def _stage_row(stage: dict[str, Any]) -> tuple[str, ...]:
    rates = ("", "")
    if stage["gflops"] is not None:
        rates = (f"{stage['gflops']:.1f}", f"{stage['share_of_peak']:.0%}")
    return (
        stage["stage"],
        stage["pass"],
        stage["per"],
        _number(stage["median_us"]),
        _number(stage["minimum_us"]),
        *rates,
    )


def _number(microseconds: float) -> str:
    return f"{microseconds:,.2f}" if abs(microseconds) < 100 else f"{microseconds:,.0f}"
