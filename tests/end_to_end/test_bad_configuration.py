"""Contract C4 for configurations: one message, nothing starts, nothing is left in runs/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refuse = Callable[..., str]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (None, ["No such file"]),
        (b"", ["empty", "data", "network"]),
        (b"# nothing\n", ["empty"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (b"data: [1, 2\n", ["not valid YAML", "line"]),
        (b"data: {name: mnist}\ndata: {name: idx}\n", ["not valid YAML", "the key 'data' appears twice"]),
        (b"just words\n", ["a text", "mapping"]),
        (b"- 1\n- 2\n", ["a list", "mapping"]),
        (b"data: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
        (b"{" * 20_000, ["not valid YAML"]),
    ],
    ids=["missing", "empty", "comments", "binary", "broken", "twice", "text", "list", "python", "deep"],
)
def test_a_file_that_is_not_a_configuration(
    refuse: Refuse, tmp_path: Path, content: bytes | None, fragments: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    message = refuse("--config", path)
    assert all(fragment in message for fragment in [str(path), *fragments]), message


def test_a_directory_instead_of_a_configuration(refuse: Refuse, tmp_path: Path) -> None:
    assert "directory" in refuse("--config", tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "fragments"),
    [
        ("trainning", {}, ["trainning: unknown key", "did you mean training?"]),
        ("training.batchsize", 3, ["training.batchsize: unknown key", "did you mean batch_size?"]),
        ("training.lr", 0.1, ["training.lr: unknown key", "training.optimizer.lr"]),
        ("training.batch_size", "many", ["training.batch_size: must be", "'many'"]),
        ("training.batch_size", 1.5, ["training.batch_size", "1.5"]),
        ("training.batch_size", True, ["training.batch_size"]),
        ("training.batch_size", 0, ["training.batch_size: must be greater than 0"]),
        ("training.batch_size", -4, ["training.batch_size: must be greater than 0"]),
        ("training.batch_size", 10**12, ["training.batch_size"]),
        ("training.tile", 0, ["training.tile"]),
        ("training.epochs", 0, ["training.epochs"]),
        ("training.epochs", -1, ["training.epochs"]),
        ("training.max_steps", 0, ["training.max_steps"]),
        ("training.optimizer.lr", 0, ["training.optimizer.lr"]),
        ("training.optimizer.lr", float("nan"), ["training.optimizer.lr"]),
        ("training.optimizer.lr", float("inf"), ["training.optimizer.lr"]),
        ("training.optimizer.lr", 1e38, ["training.optimizer.lr"]),
        ("training.optimizer.eps", 1e-300, ["training.optimizer.eps"]),
        ("training.optimizer.beta1", 1, ["training.optimizer.beta1"]),
        ("training.dtype", "float64", ["training", "kernels: loops"]),
        ("training.kernels", "quick", ["training.kernels", "fast"]),
        ("seed", -1, ["seed"]),
        ("format", 2, ["format"]),
        ("logging.every_steps", 0, ["logging.every_steps"]),
        ("checkpoints.keep_last", 0, ["checkpoints.keep_last"]),
        ("workers.max_restarts", -1, ["workers.max_restarts"]),
        ("data.name", "minst", ["data.name", "mnist"]),
        ("data.train_examples", 0, ["data.train_examples"]),
        ("data.validation_examples", -1, ["data.validation_examples"]),
        ("network", [], ["network"]),
        ("network", [{"conv": {"filters": 0, "kernel": 3}}], ["network.0", "filters"]),
        ("network", [{"conv": {"filters": 1, "kernel": 0}}], ["network.0", "kernel"]),
        ("network", [{"conv": {"filters": 1, "kernel": 3, "stride": 0}}], ["network.0", "stride"]),
        ("network", [{"conv": {"filters": 1, "kernel": 3, "padding": -1}}], ["network.0", "padding"]),
        ("network", [{"max_pool": {"window": 0}}], ["network.0", "window"]),
        ("network", [{"dense": {"units": -1}}], ["network.0", "units"]),
        ("network", [{"convolution": {}}], ["network.0", "unknown layer 'convolution'"]),
        ("network", ["flatten", {"dense": {"units": 10, "bias": True}}], ["network.1", "bias", "unknown key"]),
        ("network", [{"conv": {"filters": 1, "kernel": 29}}], ["network.0 (conv1)", "29 x 29", "28 x 28"]),
        ("network", [{"dense": {"units": 10}}], ["network.0 (dense1)", "flatten"]),
        ("network", ["flatten", {"dense": {"units": 9}}], ["network.1 (dense1)", "9 outputs", "10 classes"]),
        ("network", ["flatten"], ["network", "nothing to train"]),
        ("name", "../../x", ["name: '../../x'"]),
        ("name", "/tmp/x", ["name: "]),
        ("name", "..", ["name: "]),
        ("name", "a\0b", ["name: "]),
        ("name", "x" * 300, ["name: ", "300 characters"]),
        ("name", "", ["name: is empty"]),
        ("name", 5, ["name"]),
    ],
)
def test_an_invalid_value(
    refuse: Refuse,
    small_config: Callable[..., Path],
    noise_folder: Path,
    key: str,
    value: Any,
    fragments: list[str],
) -> None:
    changes = {"data": {"name": "idx", "path": str(noise_folder)}, key: value}
    message = refuse("--config", small_config(changes))
    assert all(fragment in message for fragment in fragments), message


def test_all_errors_of_a_configuration_are_reported_at_once(refuse: Refuse, small_config: Callable[..., Path]) -> None:
    message = refuse("--config", small_config({"training.epochs": 0, "sed": 1, "data.nme": "x"}))
    assert "3 errors" in message
    for key in ("training.epochs: ", "sed: unknown key; did you mean seed?", "data.nme: unknown key"):
        assert key in message


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("training.epochs", ["KEY=VALUE"]),
        ("=3", ["KEY=VALUE"]),
        ("", ["KEY=VALUE"]),
        ("training.epochs=[1", ["not valid YAML"]),
        ("training.epochs=two", ["training.epochs", "'two'"]),
        ("training.epoch=2", ["training.epoch: unknown key", "epochs"]),
        ("training.epochs.more=2", ["training.epochs.more"]),
        ("network.99.dense.units=2", ["there is no entry '99'; the list has 5 entries"]),
        ("network.first=relu", ["there is no entry 'first'"]),
        ("network.1.dense=2", ["network.1.dense"]),
        ("name=../../x", ["name: '../../x'"]),
        ("training=", ["training"]),
    ],
)
def test_an_invalid_override(
    refuse: Refuse, small_config: Callable[..., Path], override: str, fragments: list[str]
) -> None:
    message = refuse("--config", small_config(), "--set", override)
    assert all(fragment in message for fragment in fragments), message
