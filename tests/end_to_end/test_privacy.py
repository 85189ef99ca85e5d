"""Private training: accounting, sampling, noise, whole runs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.kernels.chacha20 import chacha20
from partrain.kernels.compiler.loading import load
from partrain.training.privacy.accounting import Accountant, least_noise
from partrain.training.privacy.dp_sgd import sample_batch
from partrain.training.privacy.random_source import SecureSource, SeededSource
from partrain.training.privacy.settings import default_max_batch_size
from tests.program import Result
from tests.whole_runs import rows_of

PRIVATE: dict[str, Any] = {
    "training.per_example": {"clip": 1.0, "statistics": True},
    "training.privacy": {"noise_multiplier": 1.0, "delta": 1e-4, "source": "seeded"},
}


# ---- accounting


def test_epsilon_lies_between_the_published_bounds() -> None:
    """Noise 1.1, 256 of 60,000, 15 epochs: dp-accounting's own RDP bound is an upper one; more steps cost more."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    steps = 15 * 235
    accountant = Accountant(256 / 60_000, 1.1, 1e-5)
    rdp = RdpAccountant().compose(PoissonSampledDpEvent(256 / 60_000, GaussianDpEvent(1.1)), steps)
    assert 0.7 * rdp.get_epsilon(1e-5) < accountant.epsilon(steps) < rdp.get_epsilon(1e-5)
    assert accountant.epsilon(0) == 0
    assert accountant.epsilon(1) < accountant.epsilon(2) < accountant.epsilon(steps)


def test_least_noise_reaches_the_target_and_hardly_less_does_not() -> None:
    noise = least_noise(0.01, 300, 1e-5, 2.0)
    assert Accountant(0.01, noise, 1e-5).epsilon(300) <= 2.0
    assert Accountant(0.01, noise - 0.001, 1e-5).epsilon(300) > 2.0


def test_most_steps_is_the_last_one_within_the_target() -> None:
    accountant = Accountant(0.02, 1.0, 1e-5)
    most = accountant.most_steps(1.5, 5000)
    assert accountant.epsilon(most) <= 1.5 < accountant.epsilon(most + 1)
    assert accountant.most_steps(1e6, 50) == 50


def test_rounding_errors_of_epsilon_do_not_change_the_number_of_steps() -> None:
    accountant = Accountant(32 / 2000, 1.0, 1e-5)
    epsilon = accountant.epsilon(100)
    assert {accountant.most_steps(epsilon * factor, 5000) for factor in (1 - 1e-12, 1, 1 + 1e-12)} == {99}


# ---- sampling and noise


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels() -> None:
    load([chacha20], "float32")


@pytest.mark.parametrize("source", [SecureSource(), SeededSource(4)], ids=["secure", "seeded"])
def test_each_example_is_in_a_batch_with_the_same_probability_whatever_the_others(source: Any) -> None:
    N, B, rounds = 400, 40, 400
    counts, sizes = np.zeros(N), []
    for step in range(rounds):
        batch = sample_batch(N, B, source.words(N, purpose="private sampling", step=step))
        assert (np.diff(batch) > 0).all()
        counts[batch] += 1
        sizes.append(len(batch))
    # Six deviations of the binomial numbers: one run in a million is outside.
    assert abs(counts - rounds * 0.1).max() < 6 * (rounds * 0.09) ** 0.5
    assert abs(np.mean(sizes) - B) < 6 * (N * 0.09 / rounds) ** 0.5
    assert 0.7 * N * 0.09 < np.var(sizes) < 1.4 * N * 0.09


def test_all_examples_are_in_every_batch_that_expects_all() -> None:
    np.testing.assert_array_equal(sample_batch(5, 5, np.full(5, 2**64 - 1, np.uint64)), np.arange(5))


def test_secure_words_never_come_again_and_seeded_ones_do() -> None:
    secure, seeded = SecureSource(), SeededSource(1)
    assert (secure.words(8, purpose="p", step=1) != secure.words(8, purpose="p", step=1)).any()
    first = seeded.words(8, purpose="p", step=1)
    np.testing.assert_array_equal(first, seeded.words(8, purpose="p", step=1))
    for other in (seeded.words(8, purpose="q", step=1), seeded.words(8, purpose="p", step=2)):
        assert (other != first).all()


def test_secure_words_come_from_a_fresh_key_of_the_system_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def zeros(num_bytes: int) -> bytes:
        asked.append(num_bytes)
        return bytes(num_bytes)

    source = SecureSource()
    one = source.words(1000, purpose="p", step=1)
    monkeypatch.setattr("os.urandom", zeros)
    known = source.words(1000, purpose="p", step=1)
    assert asked == [32]
    assert (one != known).all()
    # Word 0 of the blocks 0 and 1 of the stream that belongs to a key of zeros: RFC 8439, appendix A.1.
    assert known[:1].astype("<u8").tobytes().hex() == "76b8e0ad9f07e7be"
    source.words(3, purpose="p", step=1)
    assert asked == [32, 32]


@pytest.mark.parametrize("num_words", [0, 1, 511, 512, 513])
def test_secure_words_are_as_many_as_asked_for_and_all_differ(num_words: int) -> None:
    words = SecureSource().words(num_words, purpose="p", step=1)
    assert words.dtype == np.uint64
    assert len(set(words.tolist())) == len(words) == num_words


def test_slots_are_whole_tiles_above_the_expected_size() -> None:
    assert default_max_batch_size(256, 4) == 352
    assert default_max_batch_size(1, 5) == 10


# ---- whole runs


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def test_seeded_run_has_the_same_bits_with_workers_and_after_a_resume_and_says_that_it_is_not_private(
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    config = small_config({**PRIVATE, "logging": {"every_steps": 1}})
    alone = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "alone")
    assert "NOT private" in alone.stderr
    assert "epsilon" in alone.stderr
    stopped = call_partrain(
        "--config", config, "--workers", 2, "--run-dir", tmp_path / "stopped", "--set", "training.max_steps=4"
    )
    resumed = call_partrain("resume", stopped.run, "--workers", 1, "--max-steps", 10)
    assert summary_of(alone.run)["parameters_sha256"] == summary_of(resumed.run)["parameters_sha256"]
    assert summary_of(alone.run)["privacy"] == summary_of(resumed.run)["privacy"]
    steps = [row for row in rows_of(alone.run) if "train/loss" in row]
    assert len(steps) == 10
    assert [row for row in rows_of(resumed.run) if "train/loss" in row] == steps
    epsilons = [row["privacy/epsilon"] for row in rows_of(alone.run) if "privacy/epsilon" in row]
    assert epsilons == [summary_of(alone.run)["privacy"]["epsilon"]]
    assert "NOT private" in call_partrain("evaluate", alone.run, "--workers", 0).stdout
    assert "not private" in call_partrain("list", "--runs-dir", tmp_path).stdout


def test_batches_larger_than_the_slots_run_in_rounds_and_empty_ones_are_noise_alone(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    """Of 1 expected example a third of the batches is empty; of 20, with slots for 6, all need rounds."""
    for name, changes in (
        ("rounds", {"training.privacy": PRIVATE["training.privacy"] | {"max_batch_size": 6}}),
        ("empty", {"training.batch_size": 1, "training.max_steps": 20}),
    ):
        config = small_config({**PRIVATE, "logging": {"every_steps": 1}, **changes})
        result = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / name, "-q")
        assert result.exit_code == 0, result.stderr
    steps = [row for row in rows_of(tmp_path / "empty") if "lr" in row]
    assert len(steps) == 20
    assert 0 < sum("train/loss" not in row for row in steps) < 20


@pytest.mark.slow
def test_secure_run_shows_epsilon_and_stops_before_the_target_is_exceeded(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    privacy = {"noise_multiplier": 1.0, "delta": 1e-4, "target_epsilon": 1.9}
    config = small_config({**PRIVATE, "training.privacy": privacy, "training.epochs": 50})
    accountant = Accountant(20 / 200, 1.0, 1e-4)
    most = accountant.most_steps(1.9, 500)
    assert 1 < most < 500
    run = tmp_path / "run"
    result = call_partrain("--config", config, "--workers", 0, "--run-dir", run)
    assert result.exit_code == 0, result.stderr
    assert f"after step {most}, at which the target epsilon ends the training" in result.stderr
    assert "would exceed epsilon 1.9" in result.stderr
    summary = summary_of(run)
    assert summary["steps"] == most
    assert summary["privacy"]["epsilon"] == accountant.epsilon(most) <= 1.9
    assert summary["privacy"]["secret_noise"]
    assert "is complete" in call_partrain("resume", run, "--epochs", 60).stderr
    assert f"epsilon {accountant.epsilon(most):.4g} at delta 0.0001" in call_partrain("evaluate", run).stdout
    assert f"{accountant.epsilon(most):.3g} at 0.0001" in call_partrain("list", "--runs-dir", tmp_path).stdout
    second = call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "second", "-q")
    assert second.exit_code == 0
    assert summary_of(tmp_path / "second")["parameters_sha256"] != summary["parameters_sha256"]
    assert "epsilon" in call_partrain("compare", run, tmp_path / "second").stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.per_example": {}}, "training.per_example.clip"),
        ({"training.per_example": {"clip": float("inf")}}, "finite norm"),
        ({"training.per_example": {"clip": 0}}, "training.per_example.clip"),
        ({"training.per_example": {"clip": -1.0}}, "training.per_example.clip"),
        ({"training.privacy": {"noise_multiplier": 0.0, "delta": 1e-5}}, "training.privacy.noise_multiplier"),
        ({"training.privacy": {"noise_multiplier": -1.0, "delta": 1e-5}}, "training.privacy.noise_multiplier"),
        ({"training.privacy": {"noise_multiplier": 1.0, "delta": 0.0}}, "training.privacy.delta"),
        ({"training.privacy": {"noise_multiplier": 1.0, "delta": 1.0}}, "training.privacy.delta"),
        ({"training.privacy": {"noise_multiplier": 1.0}}, "training.privacy.delta"),
        ({"training.privacy": {"delta": 1e-5}}, "give noise_multiplier, or target_epsilon"),
        ({"training.privacy": {"delta": 1e-5, "target_epsilon": 1e-7}}, "no noise multiplier"),
        (
            {"training.privacy": {"noise_multiplier": 0.5, "delta": 1e-5, "target_epsilon": 0.1}},
            "the first step already",
        ),
        ({"training.batch_size": 300}, "is larger than the number of training examples"),
        ({"training.class_weights": "balanced"}, "class_weights"),
    ],
)
def test_what_cannot_be_private_is_refused(
    changes: dict[str, Any],
    words: str,
    call_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    result = call_partrain("--config", small_config({**PRIVATE, **changes}), "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
