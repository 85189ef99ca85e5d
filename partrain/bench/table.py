"""The facts of `partrain bench` as tables for people."""

from __future__ import annotations

from typing import Any

from partrain.system.terminal_text import table

NOTE_ON_STAGES = """\
Multiply-adds count as two operations, as if all were made: the backward passes and the update leave out
gradients that are zero, so their share of the peak can be above 100 %. The update is that of the parameters: dense
gradients, sums of slots, checks, and Adam."""
NOTE_ON_PHASES = """\
compute is what the longest shard takes in this process; wait is how much longer the workers took: waking and
collecting them, and fetching what other processors wrote. More workers than processors take turns."""
NOTE_ON_MODEL = """\
Not measured: a model, of that many cores like this one, from the phases above. It knows nothing of memory bandwidth,
shared caches, and clocks that fall when all cores work."""


def describe(facts: dict[str, Any]) -> str:
    """Return the tables.

    Parameters
    ----------
    facts : what `measurement.measure` returns.
    """
    machine, training, model = facts["machine"], facts["training"], facts["model"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    columns = [name.removesuffix("_us") for name in facts["phases"][0] if name.endswith("_us") and name != "wake_us"]
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
            "phases of a step, median µs",
            *table(
                ("workers", *columns),
                [(str(row["workers"]), *(_number(row[f"{name}_us"]) for name in columns)) for row in facts["phases"]],
                num_words=0,
            ),
            NOTE_ON_PHASES,
            "",
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
            "model: speed-up to expect against one worker",
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
            f"µs: {model['serial_us']:.0f} once a step, {model['wake_us']:.0f} for waking, "
            f"{model['dispatch_us']:.0f} for each worker's command",
            "µs of the update by one thread, by batch: " + _costs(model["update_us"]),
            *(
                ["µs of it where the workers have made all they can: " + _costs(model["helped_update_us"])]
                if model["helped_update_us"]
                else []
            ),
            "µs of a worker, by its tiles: " + _costs(model["shard_us"]),
            NOTE_ON_MODEL,
        ]
    )


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
