"""What belongs to a configuration's identity, and that runs of older versions keep theirs."""

from __future__ import annotations

import math

import pytest

from partrain.config.reader import parse_config
from tests.config.sample_configs import SMALLEST

SMALLEST_MAPPING = {"data": {"name": "mnist"}, "network": ["flatten", {"dense": {"units": 10}}]}

# Computed by the first version of partrain that wrote digests into runs. A digest that changes here makes every
# run with such a configuration impossible to resume.
FROZEN_DIGESTS = {
    "defaults": ({}, "d2f864d789ee24689c3485b5623e47809ed142f03215499f87fa142855171e7c"),
    "every key of the first version": (
        {
            "format": 1,
            "name": "everything",
            "seed": 9223372036854775807,
            "data": {
                "name": "idx",
                "path": "some/where",
                "train_examples": 10,
                "validation_examples": 0,
                "when_unavailable": "error",
            },
            "network": [
                {"conv": {"filters": 4, "kernel": [5, 3], "stride": [2, 1], "padding": [0, 2]}},
                "relu",
                {"max_pool": {"window": [2, 3], "stride": 1}},
                "flatten",
                {"dense": {"units": 10}},
            ],
            "training": {
                "epochs": 3,
                "max_steps": 5,
                "batch_size": 7,
                "tile": 2,
                "optimizer": {
                    "name": "adam",
                    "lr": 0.001,
                    "beta1": 0.0,
                    "beta2": 0.5,
                    "eps": 1.5e-7,
                    "weight_decay": 1.0,
                },
                "schedule": {
                    "name": "step",
                    "warmup_steps": 3,
                    "decay_steps": 4,
                    "final_lr": 1e-5,
                    "every_steps": 6,
                    "factor": 1.0,
                },
                "kernels": "loops",
                "dtype": "float64",
            },
            "logging": {"every_steps": 1, "evaluate_every_epochs": None, "evaluate_every_steps": 8},
            "checkpoints": {"every_steps": None, "keep_last": 1, "keep_best": False},
            "workers": {"max_restarts": 0},
        },
        "b9efb16bbdeb5c775d5bca95626dcca77fb3e0ec0797c1859fa42989801b3567",
    ),
    "folder": (
        {"data": {"name": "folder", "path": "pictures", "size": [32, 24]}},
        "505e1e88a5fa7bd5173039229c15ec0edf4bd50844f5539488dcc37f0ae88339",
    ),
    "folder of grey pictures, label noise": (
        {
            "data": {
                "name": "folder",
                "path": "pictures",
                "size": 28,
                "channels": 1,
                "on_broken": "skip",
                "label_noise": 0.25,
            }
        },
        "619248cc85fa4d22086fd6932bfb2884ee55ea710015b4f0c1d82de7c57c84dc",
    ),
    "clipping, statistics, class weights": (
        {
            "training": {
                "class_weights": "balanced",
                "per_example": {"statistics": True, "by_layer": True, "clip": 1.5},
            }
        },
        "8c643678c19396582a5a2afe9005e046cea3626e6a650ddd62d3bf1430e7e2cb",
    ),
    "infinite clipping norm": (
        {"training": {"per_example": {"statistics": True, "clip": math.inf}}},
        "d2f864d789ee24689c3485b5623e47809ed142f03215499f87fa142855171e7c",
    ),
    "early stopping": (
        {
            "training": {"stop_early": {"patience": 5}},
            "logging": {"every_steps": 3, "evaluate_every_steps": 20},
        },
        "08826d949746563fd8003f5b42b1a70544cbfb7ef4ca90cf98041337849c61bb",
    ),
    "augmentation and dropout": (
        {
            "network": ["flatten", {"dropout": {"rate": 0.5}}, {"dense": {"units": 10}}],
            "training": {"augment": {"shift": [2.0, 0.5], "elastic": {"alpha": 20.0, "sigma": 4.0}}},
        },
        "19fb6966039e90ac32fb0186b8135e311c66d47398eed18aa0f0514dc1effe5c",
    ),
    "augmentation that changes nothing": (
        {"training": {"augment": {}}},
        "578637eb50c621b7fdf5b2165f79ea9ab4fcd300760a71b55c7ef9e86231708e",
    ),
    "privacy": (
        {
            "training": {
                "per_example": {"clip": 1.0},
                "privacy": {"delta": 1e-5, "target_epsilon": 3.0, "source": "seeded"},
            }
        },
        "1a119fc16047de688262c01f5205d0b7c16c41a459ea3cd67845db41390181a0",
    ),
}


@pytest.mark.parametrize(("changes", "digest"), FROZEN_DIGESTS.values(), ids=FROZEN_DIGESTS)
def test_runs_of_older_versions_keep_their_identity(changes, digest):
    assert parse_config(SMALLEST_MAPPING | changes, source="test").identity_digest() == digest


RUNTIME = {
    "logging.every_steps=3",
    "logging.evaluate_every_epochs=null",
    "logging.evaluate_every_steps=5",
    "logging.plots=false",
    "checkpoints.every_steps=null",
    "checkpoints.keep_last=1",
    "workers.max_restarts=0",
    "training.per_example={statistics: true, by_layer: true}",
}
HORIZON = {"training.epochs=5", "training.max_steps=7"}
IDENTITY = {
    "seed=1",
    "name=other",
    "data.train_examples=5",
    "data.label_noise=0.1",
    "network.0={dropout: {rate: 0.5}}",
    "network.1.dense.units=11",
    "training.tile=2",
    "training.batch_size=16",
    "training.optimizer.lr=0.1",
    "training.schedule.warmup_steps=1",
    "training.kernels=loops",
    "training.per_example.clip=1",
    "training.class_weights=balanced",
    "training.augment={}",
    "training.augment={shift: 1}",
    "training.augment={flip: vertical}",
    "training.augment={crop: {padding: 1}}",
    "training.augment={erase: {}}",
    "training.augment={erase: {probability: 1}}",
    "training.augment={brightness: 0.1}",
    "training.augment={contrast: 0.1}",
    "training.label_smoothing=0.1",
    "training.mixup={alpha: 1}",
    "training.mixup={alpha: 1, probability: 0.5}",
    "training.cutmix={alpha: 1}",
    "training.stop_early={}",
}


@pytest.mark.parametrize("override", sorted(RUNTIME | HORIZON))
def test_a_key_that_cannot_change_results_does_not_change_the_identity(read, override):
    assert read(SMALLEST, override).identity_digest() == read(SMALLEST).identity_digest()


def test_every_key_that_can_change_results_changes_the_identity(read):
    digests = {read(SMALLEST, override).identity_digest() for override in IDENTITY}
    assert len(digests | {read(SMALLEST).identity_digest()}) == len(IDENTITY) + 1


@pytest.mark.parametrize("override", ["training.optimizer.weight_decay=0", "data.label_noise=0", "training.augment="])
def test_writing_out_a_default_does_not_change_the_identity(read, override):
    assert read(SMALLEST, override).identity() == read(SMALLEST).identity()


def test_with_early_stopping_the_evaluation_intervals_belong_to_the_identity(read):
    stopping = read(SMALLEST, "training.stop_early={}")
    often = ("training.stop_early={}", "logging.evaluate_every_steps=5", "logging.evaluate_every_epochs=null")
    assert read(SMALLEST, *often).identity_digest() != stopping.identity_digest()
    others = ("training.stop_early={}", "logging.every_steps=1", "logging.plots=false", "training.epochs=9")
    assert read(SMALLEST, *others).identity_digest() == stopping.identity_digest()


@pytest.mark.parametrize(
    ("layer", "new_keys"),
    [
        ({"conv": {"filters": 4, "kernel": 3, "stride": 1, "padding": 0}}, {"dilation": 1, "groups": 1, "bias": True}),
        ({"max_pool": {"window": 2, "stride": None}}, {"padding": 0}),
    ],
    ids=["conv", "max_pool"],
)
def test_a_layer_has_the_identity_of_the_format_before_its_keys_were_added(layer, new_keys):
    ((kind, fields),) = layer.items()

    def identity(**keys):
        network = [{kind: fields | keys}, "flatten", {"dense": {"units": 10}}]
        return parse_config(SMALLEST_MAPPING | {"network": network}, source="test").identity()

    assert identity()["network"][0] == layer
    assert identity(**new_keys) == identity()
    for key, value in new_keys.items():
        assert identity(**{key: 1 + value if not isinstance(value, bool) else not value}) != identity()
