from __future__ import annotations

import re

import pytest

from partrain.config.schema.augmentation import Augment, Crop, Cutmix, Elastic, Erase, Mixup
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


def test_mixing_smoothing_and_changes_of_pixels_read_back_equal(read):
    config = read(
        SMALLEST,
        "training.augment={crop: {padding: [4, 2]}, flip: both, erase: {area: [0.1, 0.2]}, brightness: 0.5}",
        "training.mixup={alpha: 0.2}",
        "training.cutmix={alpha: 1, probability: 0.5}",
        "training.label_smoothing=0.1",
    )
    training = config.training
    erase = Erase(probability=0.5, area=(0.1, 0.2), aspect=(0.3, 3.3))
    assert training.augment == Augment(crop=Crop(padding=(4, 2)), flip="both", erase=erase, brightness=0.5)
    assert (training.mixup, training.cutmix) == (Mixup(alpha=0.2), Cutmix(alpha=1.0, probability=0.5))
    assert training.label_smoothing == 0.1
    assert read(config.to_yaml()) == config


def test_everything_that_does_not_fit_together_is_reported_at_once(refusal):
    message = refusal(
        SMALLEST
        + """
training:
  mixup: {alpha: 0.2, probability: 0.7}
  cutmix: {alpha: 1, probability: 0.7}
  class_weights: balanced
  privacy: {delta: 1.0e-5, noise_multiplier: 1}
  dtype: float64
"""
    )
    assert "8 errors" in message
    for name in ("mixup", "cutmix"):
        assert f"  training.{name} lets an example change the gradients of others, which training.privacy" in message
        assert f"  training.{name} makes targets of two classes, but training.class_weights has" in message
    for part in ("add up to 1.4; ", "needs clipped gradients", "class_weights depends on all labels", "kernels: loops"):
        assert part in message


def test_what_is_right_together_is_not_refused(read):
    private = ["training.privacy={delta: 1.0e-5, noise_multiplier: 1}", "training.per_example.clip=1"]
    read(SMALLEST, *private, "training.label_smoothing=0.1", "training.augment={flip: vertical, erase: {}}")
    read(SMALLEST, "training.label_smoothing=0.1", "training.class_weights=balanced")
    read(SMALLEST, "training.mixup={alpha: 1}", "training.per_example={clip: 1, statistics: true}")


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
        ("training.augment={flip: yes}", "training.augment.flip: must be 'horizontal', 'vertical' or 'both', not true"),
        ("training.augment={crop: {}}", "training.augment.crop.padding: this key is needed"),
        ("training.augment={crop: {padding: 1.5}}", "training.augment.crop.padding: must be a whole number or [rows"),
        ("training.augment={contrast: 1.5}", "training.augment.contrast: must be less than or equal to 1, not 1.5"),
        ("training.augment={brightnes: 1}", "training.augment.brightnes: unknown key; did you mean brightness?"),
        ("training.augment={erase: {area: 0.5}}", "training.augment.erase.area: must be [least, greatest]"),
        (
            "training.augment={erase: {area: [0.5, 0.2]}}",
            "training.augment.erase.area: must be [least, greatest], and 0.5 is greater than 0.2",
        ),
        ("training.augment={erase: {area: [0, 0.2]}}", "training.augment.erase.area.0: must be greater than 0, not 0"),
        ("training.augment={erase: {aspect: [0.3, 200]}}", "training.augment.erase.aspect.1: must be less than or"),
        ("training.augment={erase: {probability: 0}}", "training.augment.erase.probability: must be greater than 0"),
        ("training.label_smoothing=1", "training.label_smoothing: must be less than 1, not 1"),
        ("training.label_smoothing=-0.1", "training.label_smoothing: must be greater than or equal to 0, not -0.1"),
        ("training.label_smooting=0.1", "training.label_smooting: unknown key; did you mean label_smoothing?"),
        ("training.mixup={}", "training.mixup.alpha: this key is needed"),
        ("training.mixup={alpha: 0}", "training.mixup.alpha: must be greater than or equal to 0.001, not 0"),
        (
            "training.mixup={alpha: 1, probabilty: 1}",
            "training.mixup.probabilty: unknown key; did you mean probability?",
        ),
        ("training.cutmix={alpha: 1, probability: 2}", "training.cutmix.probability: must be less than or equal to 1"),
        ("training.cutmix=1", "training.cutmix: must be a mapping of keys to values, not 1"),
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
