from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from partrain.bench import trial
from partrain.bench.host_model import LINKS, HostCosts, Link, widened
from partrain.bench.measurement import MODEL_BATCHES, MODEL_CORES
from partrain.bench.phases import PHASES, SERIES_PHASES, signal_seconds
from partrain.bench.rank_table import describe
from partrain.bench.ranks import MODEL_BATCHES as HOST_BATCHES
from partrain.bench.ranks import MODEL_HOSTS
from partrain.bench.step_model import StepCosts
from partrain.config.reader import read_config
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.workers.tiles import Tiling
from tests.mpi_processes import isolated_jobs, mpiexec, needs_mpi
from tests.program import ROOT, PartrainProcess, Result

COSTS = StepCosts(
    tiling=Tiling(4),
    serial=10.0,
    signals=lambda workers: 5.0 + 2.0 * workers,
    shard={1: 12.0, 2: 20.0, 8: 80.0},
    update={8: 3.0, 32: 6.0, 30: 6.0, 128: 20.0},
    parts=lambda batch_size, workers: 2 if batch_size == 128 and workers > 1 else 1,
)


def test_model_of_a_step_is_its_formula() -> None:
    assert COSTS.step(32, 1) == 10 + 2 + 80 + 5 + 6
    assert COSTS.step(32, 4) == 10 + 8 + 20 + 5 + 6
    assert COSTS.step(32, 8) == 10 + 16 + 12 + 5 + 6
    assert COSTS.speed_up(32, 8) == 103 / 49
    assert COSTS.speed_up(32, 1) == 1


def test_model_gives_work_to_no_more_workers_than_there_are_tiles() -> None:
    assert COSTS.step(32, 16) == COSTS.step(32, 8)
    assert COSTS.step(8, 16) == 10 + 4 + 12 + 5 + 3


def test_model_counts_a_part_of_a_tile_and_of_a_round_as_a_whole_one() -> None:
    assert COSTS.step(30, 8) == COSTS.step(32, 8)
    assert COSTS.step(32, 5) == 10 + 10 + 20 + 5 + 6  # 8 tiles for 5 workers: one has 2


def test_model_divides_the_update_between_the_threads_that_make_it() -> None:
    assert COSTS.step(128, 8) == 10 + 16 + 20 * 4 / 2 + 5 + 20 / 2


def test_model_takes_unmeasured_shards_in_proportion_to_the_next_fewer_tiles() -> None:
    assert COSTS.step(32, 3) == 10 + 6 + 20 * 3 / 2 + 5 + 6
    assert COSTS.step(128, 1) == 10 + 2 + 80 * 32 / 8 + 5 + 20


def test_signals_of_steps_with_the_coordinator_grow_with_each_worker() -> None:
    rows = [{"by_workers": False, "workers": n, "dispatch_us": 2e6 * n, "wake_us": 5e6 + n} for n in (1, 4)]
    seconds = signal_seconds(rows)
    assert [seconds(n) for n in (1, 2, 8)] == pytest.approx([7.0, 9.0, 21.0], abs=1e-4)


def test_signals_of_steps_by_workers_are_their_waits_without_those_of_one_worker() -> None:
    one = {"by_workers": True, "workers": 1, "wait_us": 1e6, "settle_us": 5e6}
    four = {"by_workers": True, "workers": 4, "wait_us": 3e6, "settle_us": 8e6}
    seconds = signal_seconds([one, four])
    # 3 + 8 - 5 = 6 for two rounds of meetings.
    assert [seconds(n) for n in (1, 2, 4, 5, 16)] == pytest.approx([0.0, 3.0, 6.0, 9.0, 12.0])
    assert signal_seconds([one])(8) == 0.0
    assert signal_seconds([one, four | {"wait_us": 0.0, "settle_us": 1e6}])(8) == 0.0


def numbers_in(facts: Any) -> Iterator[float]:
    if isinstance(facts, dict | list):
        for value in facts.values() if isinstance(facts, dict) else facts:
            yield from numbers_in(value)
    elif isinstance(facts, int | float):
        yield facts


@pytest.mark.slow
def test_json_holds_the_facts(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    before = set(os.listdir(tmp_path)) | {"small.yaml"}
    arguments = ("--config", small_config(), "--workers", "0,2", "--json", "-q")
    result = run_partrain("bench", *arguments, env={"TMPDIR": str(tmp_path / "temporary")})
    assert (result.exit_code, result.stderr) == (0, "")
    assert not os.listdir(tmp_path / "temporary")
    assert {name for name in os.listdir(tmp_path) if not name.startswith("said-")} == before

    facts = json.loads(result.stdout)
    assert list(facts) == ["machine", "training", "stages", "kernels", "phases", "scaling", "model"]
    assert all(math.isfinite(number) for number in numbers_in(facts))
    assert facts["machine"]["peak_gflops"] > 0
    assert facts["machine"]["lanes"] in (4, 8, 16)
    assert {"partrain", "numba", "numpy"} <= set(facts["machine"]["versions"])
    assert (facts["training"]["batch_size"], facts["training"]["tile"]) == (20, 3)

    stages = {(stage["stage"], stage["pass"]): stage for stage in facts["stages"]}
    assert len(stages) == len(facts["stages"])
    assert set(stages) >= {
        ("gather, borders", "forward"),
        ("conv1+relu1+pool1", "forward"),
        ("conv1+relu1+pool1", "backward"),
        ("dense1", "forward"),
        ("dense1", "backward"),
        ("softmax", "both"),
        ("1 thread", "update"),
    }
    for stage in facts["stages"]:
        assert 0 < stage["minimum_us"] <= stage["median_us"]
    kernels = {(row["kernel"], row["pass"]): row for row in facts["kernels"]}
    assert len(kernels) == len(facts["kernels"])
    assert kernels["dense.dense_forward", "forward"]["calls"] == 1
    assert ("layout.gather_normalised", "forward") in kernels
    assert sum(row["share"] for row in facts["kernels"]) == pytest.approx(1)
    assert [row["median_us"] for row in facts["kernels"]] == sorted(
        (row["median_us"] for row in facts["kernels"]), reverse=True
    )
    dense = stages["dense1", "forward"]
    assert dense["gflops"] == pytest.approx(2 * 72 * 10 / dense["median_us"] / 1e3)
    assert dense["share_of_peak"] == pytest.approx(dense["gflops"] / facts["machine"]["peak_gflops"])

    assert [row["workers"] for row in facts["phases"]] == [0, 1, 2]
    for row in facts["phases"]:
        assert row["by_workers"] == (row["workers"] > 0)
        phases = SERIES_PHASES if row["by_workers"] else PHASES
        measured = {name: row[f"{name}_us"] for name in phases if f"{name}_us" in row}
        assert row["sum_us"] == pytest.approx(sum(measured.values()))
        # The time without workers can be shorter than that of the shard, which is measured before.
        assert all(us > 0 for name, us in measured.items() if name != "wait")
        assert set(measured) == (
            {"compute", "wait", "update", "settle"}
            if row["by_workers"]
            else {"prepare", "compute", "wait", "update", "logging"}
        )
        assert row["step_us"] > 0
        if row["by_workers"]:
            # Parts of one interval; the interval lasts at least as long as the longest of them.
            assert row["step_us"] >= max(measured.values())
            assert row["plan_us"] > 0
            assert row["log_us"] > 0
    assert [row["tiles_per_worker"] for row in facts["scaling"]] == [[7, 7], [7, 7], [3, 4]]
    assert facts["scaling"][1]["speed_up"] == 1
    for row, phases in zip(facts["scaling"], facts["phases"], strict=True):
        assert row["examples_per_s"] == pytest.approx(20 / phases["step_us"] * 1e6)

    expected = facts["model"]["expected"]
    assert [(row["batch_size"], row["cores"]) for row in expected] == list(product(MODEL_BATCHES, MODEL_CORES))
    assert all(row["speed_up"] > 0 and row["step_us"] > 0 for row in expected)


@pytest.mark.slow
def test_table_is_on_stdout_and_the_rest_on_stderr(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    changes = {"training.kernels": "loops", "training.dtype": "float64", "training.tile": 20}
    result = run_partrain("bench", "--config", small_config(changes), "--workers", "1,2")
    assert result.exit_code == 0, result.stderr
    for expected in (
        "GFLOP/s",
        "all layers",
        "phases of a step, median",
        "tiles per worker",
        "model: expected speed-up",
        "loops kernels in float64",
    ):
        assert expected in result.stdout
    assert "warning: a batch has 1 tile:" in result.stderr
    assert "measuring with 1 worker" in result.stderr
    assert "with 2 workers" not in result.stderr


@pytest.mark.parametrize("workers", ["", "two", "1,,2", "1;2", "-1", "1,5000", "1.5"])
def test_malformed_workers_are_the_users_mistake(workers: str, call_partrain: Callable[..., Result]) -> None:
    result = call_partrain("bench", f"--workers={workers}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "argument --workers" in result.stderr


def test_wrong_configuration_is_the_users_mistake(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    missing = call_partrain("bench", "--config", tmp_path / "missing.yaml")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "missing.yaml" in missing.stderr
    unfit = call_partrain("bench", "--config", small_config({"training.batch_size": 0}))
    assert (unfit.exit_code, unfit.stdout) == (2, "")
    assert "training.batch_size" in unfit.stderr


def test_numbers_that_are_not_finite_are_a_failure(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    result = run_partrain("bench", "--config", small_config({"training.optimizer.lr": 1e30}), "--workers", 1)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not finite" in result.stderr
    assert "Traceback" not in result.stderr


def test_signal_ends_it_and_its_workers(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    process = start_partrain("bench", "--config", small_config(), "--workers", 2)
    process.wait_for("measuring with 1 worker")
    process.send(15)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (143, "")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "stage", "phase"),
    [
        ({"training.per_example": {"clip": 0.5}}, "clipping", None),
        ({"training.per_example": {"statistics": True}}, "softmax", "statistics_us"),
        ({"training.per_example": {"statistics": True}, "logging.every_steps": 1}, "softmax", "wake_us"),
        ({"training.augment": {"shift": 2}}, "augmentation", None),
        (
            {
                "training.per_example": {"clip": 1.0},
                "training.privacy": {"noise_multiplier": 1.0, "delta": 1e-4, "max_batch_size": 12},
            },
            "clipping",
            "noise_us",
        ),
        # Flattening one number a channel computes nothing.
        ({"network": ["global_avg_pool", {"dense": {"units": 10}}]}, "global_avg_pool1", None),
    ],
    ids=["clipped", "with statistics", "with statistics in each step", "augmented", "private", "a stage of no work"],
)
def test_every_configuration_is_measured(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    stage: str,
    phase: str | None,
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.02)
    result = call_partrain("bench", "--config", small_config(changes), "--workers", 1, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert all(math.isfinite(number) for number in numbers_in(facts))
    assert stage in {row["stage"] for row in facts["stages"]}
    (row,) = facts["phases"]
    assert {name for name in ("statistics_us", "noise_us") if name in row} == {phase} - {None, "wake_us"}
    assert row["by_workers"] == (phase in (None, "statistics_us"))
    # Noise is a part of the update.
    serial = ("plan_us", "log_us", "statistics_us") if row["by_workers"] else ("prepare_us", "logging_us")
    assert facts["model"]["serial_us"] == pytest.approx(sum(row.get(name, 0.0) for name in serial))
    assert row["step_us"] > 0


# ---- several hosts


def test_model_of_hosts_is_its_formula() -> None:
    config = read_config(ROOT / "configs/mnist.yaml")
    network = Network(config.network, (1, 28, 28), 10)
    groups, tiling, P = ParameterGroups.of(network, config.training.optimizer), Tiling(4), network.parameters.size
    costs = HostCosts(
        network=network,
        groups=groups,
        training=config.training,
        tiling=tiling,
        serial=1.0,
        compute={1: 3.0, 4: 10.0, 8: 20.0},
        update={1: 0.4, 4: 1.0, 8: 2.0},
        updated=P,
        copy_s_per_byte=1e-6,
    )
    link, latency = Link("a link", latency_s=0.5, bytes_per_second=1e5), 0.5 + 7 * 2e-6
    assert costs.step(32, 1, link) == pytest.approx(1 + 20 + 2)
    of_all = costs.sent(32, 8).total
    shared = 1 + 3 + latency + of_all / 1e5 + of_all * 8 / 7 * 1e-6 + 2
    assert costs.step(32, 8, link) == pytest.approx(shared)
    sent = costs.sent(2048, 8)
    assert (sent.factors, sent.sums + sent.parameters) == (0, pytest.approx(2 * 4 * P * 7 / 8, abs=32))
    sums = 1.6 * 63 / 7  # each of 64 tiles but the first takes as long as those that were measured
    owned = 1 + 20 * 64 / 8 + 2 * latency + sent.total / 1e5 + sums + 0.4 / 8 + 4 * P * 4 * 1e-6
    assert costs.step(2048, 8, link) == pytest.approx(owned)
    assert costs.speed_up(32, 2, link) == costs.step(32, 1, link) / costs.step(32, 2, link)


def test_widened_network_is_wider_and_has_as_many_outputs() -> None:
    config = read_config(ROOT / "configs/mnist.yaml")
    wide = Network(widened(config.network, 10), (1, 28, 28), 10)
    assert [p.shape for p in wide.parameters if p.name.endswith("weight")] == [
        (80, 1, 5, 5),
        (80, 80, 5, 5),
        (1280, 8000),
        (10, 1280),
    ]


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize(
    ("changes", "num_messages"), [({}, 1), ({"training.batch_size": 600, "data.train_examples": 600}, 2)]
)
def test_bench_measures_the_exchange_between_ranks(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], changes: dict[str, Any], num_messages: int
) -> None:
    words = ("bench", "--engine", "mpi", "--config", small_config(changes), "--workers", 1, "--json", "-q")
    with isolated_jobs() as environment:
        result = run_partrain(*words, wrapper=mpiexec(2), env=environment)
    assert (result.exit_code, result.stderr) == (0, "")
    facts = json.loads(result.stdout)
    assert list(facts) == ["training", "ranks", "exchange", "model"]
    assert all(math.isfinite(number) for number in numbers_in(facts))
    assert [one["workers"] for one in facts["ranks"]] == [1, 1]
    sent = facts["exchange"]["bytes_of_ranks"]
    assert list(sent[0]) == ["results", "factors", "sums", "parameters"]
    assert facts["exchange"]["bytes"] == sum(sum(of_rank.values()) for of_rank in sent)
    assert facts["exchange"]["median_us"] > 0
    assert len(facts["exchange"]["by_message_us"]) == num_messages
    assert len(facts["model"]["expected"]) == 2 * len(HOST_BATCHES) * len(LINKS) * len(MODEL_HOSTS)
    assert "model: expected speed-up against one host, this network" in describe(facts)


def test_bench_on_ranks_takes_one_number_of_workers(call_partrain: Callable[..., Result]) -> None:
    result = call_partrain("bench", "--engine", "mpi", "--workers", "1,2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give one number of workers" in result.stderr
