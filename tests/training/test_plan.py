from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from partrain.config.reader import parse_config, read_config
from partrain.errors import ConfigError, ResourceError
from partrain.kernels.bits_version import BITS_VERSION
from partrain.parallel import memory_plan
from partrain.parallel.memory_plan import check_memory
from partrain.system.machine import MIB
from partrain.system.shared_arrays import total_bytes
from partrain.training import plan as plan
from partrain.training.plan import TrainingPlan, check_disk, describe_plan, plan_training
from tests.noise_data import noise_examples
from tests.small_run import write_small_config


@pytest.fixture
def prepare_small(tmp_path: Path, noise_folder: Path) -> Callable[..., TrainingPlan]:
    """Prepare the small configuration on 60 examples of noise, with changes by dotted key."""

    def make(changes: dict[str, Any] | None = None) -> TrainingPlan:
        data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 10}
        path = write_small_config(tmp_path, {"data": data, **(changes or {})})
        return plan_training(read_config(path), say=pytest.fail, warn=pytest.fail)

    return make


def test_steps_are_those_of_epochs_or_max_steps_whichever_ends_earlier(
    prepare_small: Callable[..., TrainingPlan],
) -> None:
    assert prepare_small().steps_per_epoch == 3  # 50 examples, the last batch has 10 of 20
    assert prepare_small({"training.epochs": 4}).num_steps == 12
    assert prepare_small({"training.epochs": 4, "training.max_steps": 5}).num_steps == 5
    assert prepare_small({"training.epochs": 4, "training.max_steps": 50}).num_steps == 12
    assert prepare_small({"training.batch_size": 200}).steps_per_epoch == 1


def test_resolved_configuration_names_what_is_really_used(prepare_small: Callable[..., TrainingPlan]) -> None:
    prepared = prepare_small({"data.train_examples": None, "data.validation_examples": None})
    data = prepared.config.data
    assert (data.train_examples, data.validation_examples) == (50, 10)  # a sixth is for validation
    assert data.when_unavailable == "error"
    assert {name: split.size for name, split in prepared.dataset.splits.items()} == {
        "train": 50,
        "validation": 10,
        "test": 20,
    }


def test_all_that_does_not_fit_the_data_is_reported_at_once(prepare_small: Callable[..., TrainingPlan]) -> None:
    changes = {
        "training.freeze": ["conv9"],
        "training.augment": {"shift": 99},
        "training.batch_size": 70,
        "training.per_example.clip": 1.0,
        "training.privacy": {"delta": 1e-5, "noise_multiplier": 1.0},
    }
    with pytest.raises(ConfigError) as refusal:
        prepare_small(changes)
    keys = [line.partition(":")[0] for line in str(refusal.value).splitlines()]
    assert keys == ["training.freeze", "training.augment.shift", "training.batch_size"]


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({"warmup_steps": 200}, "warm-up of 200 steps is longer than the training of 3 steps"),
        ({"name": "cosine", "warmup_steps": 2, "decay_steps": 1}, "the cosine would end at step 1"),
    ],
)
def test_schedule_that_hardly_anybody_wants_is_warned_about(
    tmp_path: Path, noise_folder: Path, schedule: dict[str, Any], problem: str
) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 10}
    path = write_small_config(tmp_path, {"data": data, "training.schedule": schedule})
    warnings: list[str] = []
    plan_training(read_config(path), say=pytest.fail, warn=warnings.append)
    assert len(warnings) == 1
    assert problem in warnings[0]


def test_decay_steps_come_from_the_epochs_and_not_from_max_steps(
    prepare_small: Callable[..., TrainingPlan],
) -> None:
    changes = {"training.epochs": 4, "training.max_steps": 5, "training.schedule": {"name": "cosine"}}
    assert prepare_small(changes).config.training.schedule.decay_steps == 12
    changes["training.schedule"] = {"name": "cosine", "decay_steps": 7}
    assert prepare_small(changes).config.training.schedule.decay_steps == 7


def test_resolved_configuration_resolves_to_itself(prepare_small: Callable[..., TrainingPlan]) -> None:
    config = prepare_small({"training.epochs": 4}).config
    again = plan_training(parse_config(config.to_mapping(), source="test"), say=pytest.fail, warn=pytest.fail)
    assert again.config == config


def test_normalisation_is_of_the_training_examples_alone(prepare_small: Callable[..., TrainingPlan]) -> None:
    images = noise_examples(60)[0][:50].astype(np.float64)
    normalisation = prepare_small().normalisation
    assert normalisation.mean == pytest.approx((images.mean(),), rel=1e-12)
    assert normalisation.std == pytest.approx((images.std(),), rel=1e-12)


def test_plan_of_memory_holds_all_shared_arrays(prepare_small: Callable[..., TrainingPlan]) -> None:
    prepared = prepare_small()
    specs, files = prepared.compute_plan().arrays()
    assert files == {}
    assert specs["train.images"].shape == (50, 1, 28, 28)
    assert specs["validation.images"].shape == (10, 1, 28, 28)
    plan = prepared.compute_plan().memory(3)
    assert plan["data set"] + plan["parameters and exchange"] >= total_bytes(specs)
    assert set(plan) == {
        "data set",
        "parameters and exchange",
        "gradient and moments",
        "3 workers",
        "interpreters",
        "copies, checkpoints, plots",
    }
    assert (
        sum(prepared.compute_plan().memory(0).values())
        < sum(plan.values())
        < sum(prepared.compute_plan().memory(8).values())
    )


def test_evaluations_of_a_training_fit_into_the_plan(prepare_small: Callable[..., TrainingPlan]) -> None:
    """Of validation and test, that is: what grows with the training examples does not fit for a large file."""
    for batch_size in (4, 200):
        specs, _ = prepare_small({"training.batch_size": batch_size}).compute_plan().arrays()
        assert specs["losses"].shape == specs["predictions"].shape == (max(20, batch_size),)
        assert specs["indices"].shape == (batch_size,)


def test_large_files_take_no_memory_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 20 * 28 * 28)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "arrays"
    folder.mkdir()
    for split, n in (("train", 60), ("test", 20)):
        images, labels = noise_examples(n)
        np.save(folder / f"{split}_images.npy", images.astype(np.float32))
        np.save(folder / f"{split}_labels.npy", labels)
    data = {"name": "arrays", "path": str(folder), "train_examples": 50, "validation_examples": 10}
    prepared = plan_training(read_config(write_small_config(tmp_path, {"data": data})), say=print, warn=print)
    specs, files = prepared.compute_plan().arrays()
    assert set(files) == {"train.images", "validation.images", "test.images"}
    assert set(specs) >= {"train.labels", "validation.labels", "test.labels"}
    assert not set(files) & set(specs)
    assert [files[f"{split}.images"].shape[0] for split in ("train", "validation", "test")] == [50, 10, 20]


def test_checkpoint_is_no_larger_than_planned(prepare_small: Callable[..., TrainingPlan]) -> None:
    prepared = prepare_small()
    assert prepared.checkpoint_bytes > 3 * 4 * prepared.network.parameters.size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.train_examples": 61}, "61 \\+ 10 examples"),
        ({"network": ["flatten", {"dense": {"units": 9}}]}, "network.1 \\(dense1\\): 9 outputs are too few"),
        ({"network": [{"conv": {"filters": 1, "kernel": 29}}]}, "network.0 \\(conv1\\): the kernel 29 x 29"),
        ({"network": [{"max_pool": {"window": [2, 40]}}]}, "network.0 .*window 2 x 40 is larger"),
        ({"network": [{"dense": {"units": 10}}]}, "network.0 \\(dense1\\).*flatten"),
        ({"network": ["flatten", "relu"]}, "nothing to train"),
    ],
)
def test_error_of_shapes_names_the_layer(
    prepare_small: Callable[..., TrainingPlan], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_small(changes)


def test_description_shows_configuration_layers_and_memory(prepare_small: Callable[..., TrainingPlan]) -> None:
    text = describe_plan(prepare_small(), 2)
    for expected in ("batch_size: 20", "conv1", "2 x 24 x 24", "52", "multiply-adds", "memory plan", "2 workers"):
        assert expected in text
    assert f"\nbits: {BITS_VERSION}\n" in text
    assert text.splitlines()[-1].endswith("MiB  total")


def test_plan_of_a_rank_has_its_messages_and_no_steps_that_workers_make(
    prepare_small: Callable[..., TrainingPlan],
) -> None:
    alone, plan = prepare_small(), prepare_small().compute_plan({"exchange between 2 ranks": 3 * MIB})
    assert "steps.numbers" in alone.compute_plan().exchange
    assert "steps.numbers" not in plan.exchange
    assert plan.memory(1)["exchange between 2 ranks"] == 3 * MIB
    assert plan.memory(1)["gradient and moments"] == 3 * 4 * alone.network.parameters.size


def test_too_little_memory_says_what_is_needed_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 100 * MIB)
    check_memory({"data set": 60 * MIB, "workers": 40 * MIB})
    with pytest.raises(ResourceError, match=r"about 101 MiB .*data set 60 MiB, workers 41 MiB.*100 MiB are"):
        check_memory({"data set": 60 * MIB, "workers": 41 * MIB})


def test_memory_that_nobody_tells_of_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: None)
    check_memory({"data set": 2**60})


def test_too_little_disk_says_what_is_needed_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=30 * MIB))
    check_disk(tmp_path, 10 * MIB, 3)
    with pytest.raises(ResourceError, match=r"about 40 MiB for 4 checkpoints, but 30 MiB are free"):
        check_disk(tmp_path, 10 * MIB, 4)
