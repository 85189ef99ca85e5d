from __future__ import annotations

import re

import pytest

from partrain.config.schema.augmentation import Augment, Elastic
from partrain.errors import ConfigError
from tests.config.sample_configs import SMALLEST


def test_float64_needs_the_loops(read, refusal):
    message = refusal(SMALLEST + "training: {dtype: float64}")
    assert "training" in message
    assert "kernels: loops" in message
    assert read(SMALLEST + "training: {dtype: float64, kernels: loops}").training.dtype == "float64"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.stop_early.patience=0"], "training.stop_early.patience: "),
        (["training.stop_early.metric=train/loss"], "training.stop_early.metric: "),
        (["training.stop_early.min_delta=-1"], "training.stop_early.min_delta: "),
        (["training.stop_early=3"], "training.stop_early: must be a mapping of keys to values, not 3"),
        (["training.stop_early.patient=3"], "training.stop_early.patient: unknown key; did you mean patience?"),
        (["patience=3"], "patience: unknown key; did you mean training.stop_early.patience?"),
        (
            ["training.stop_early={}", "logging.evaluate_every_epochs=null"],
            "needs evaluations during training",
        ),
    ],
)
def test_errors_in_stop_early_are_reported_with_their_keys(read, overrides, expected):
    with pytest.raises(ConfigError) as refusal:
        read(SMALLEST, *overrides)
    assert expected in str(refusal.value)


def test_augmentation_reads_back_equal(read):
    config = read(SMALLEST, "training.augment={shift: [2, 0.5], rotation: 10, elastic: {alpha: 20, sigma: 4}}")
    elastic = Elastic(alpha=20.0, sigma=4.0)
    assert config.training.augment == Augment(shift=(2.0, 0.5), rotation=10.0, scale=0.0, elastic=elastic)
    assert read(config.to_yaml()) == config
    assert read(SMALLEST, "training.augment={shift: 1.5}").training.augment == Augment(shift=(1.5, 1.5))
    assert read(SMALLEST, "training.augment=null") == read(SMALLEST)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.augment={shift: -1}", "training.augment.shift.0: must be greater than or equal to 0, not -1"),
        ("training.augment={shift: a}", "training.augment.shift: must be a number or [rows, columns]"),
        ("training.augment={shift: yes}", "training.augment.shift: must be a number or [rows, columns]"),
        ("training.augment={rotation: 181}", "training.augment.rotation: must be less than or equal to 180, not 181"),
        ("training.augment={scale: 1}", "training.augment.scale: must be less than 1, not 1"),
        ("training.augment={elastic: {alpha: 1}}", "training.augment.elastic.sigma: this key is needed"),
        (
            "training.augment={elastic: {alpha: 1, sigma: 0.5}}",
            "training.augment.elastic.sigma: must be greater than or equal to 1, not 0.5",
        ),
        ("training.augment={elastic: {alpha: -1, sigma: 4}}", "training.augment.elastic.alpha: must be greater than"),
        ("training.augment={rotaton: 3}", "training.augment.rotaton: unknown key; did you mean rotation?"),
        ("training.augment=mild", "training.augment: must be a mapping of keys to values, not 'mild'"),
        ("network.0.dropout.rate=1", "network.0.dropout.rate: must be less than 1, not 1"),
        ("network.0={dropout: {rate: -0.1}}", "network.0.dropout.rate: must be greater than or equal to 0, not -0.1"),
        ("network.0={dropout: {rat: 0.1}}", "network.0.dropout.rat: unknown key; did you mean rate?"),
        ("network.0=dropout", "network.0.dropout.rate: this key is needed"),
        ("network.0={dropout: 0.5}", "the fields of dropout are written as `dropout: {…}`"),
    ],
)
def test_errors_in_augmentation_and_dropout_are_reported_with_their_keys(read, override, expected):
    text = (
        SMALLEST if "network" not in override else SMALLEST.replace("- flatten", "- dropout: {rate: 0.5}\n  - flatten")
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        read(text, override)
