"""The trainings: a few steps of small networks, which together compute all that can reach a parameter or a metric.

Their data is drawn by partrain itself or comes from integers, so that no other program can change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.synthetic_digits import draw_digits

Layers = list[Any]
Images = NDArray[Any]
Examples = tuple[Images, NDArray[np.int64]]

NUM_TRAIN, NUM_TEST = 180, 40


def _digits(split: str, num: int) -> Examples:
    return draw_digits(0, num, seed=3, split=split)


def _patterns(shape: tuple[int, int, int], num_classes: int, dtype: str) -> Callable[[str, int], Examples]:
    """Return what makes images of noise, brighter in some rows, which depend on the class; classes differ in size."""

    def make(split: str, num: int) -> Examples:
        # The output function of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
        z = np.arange(num * int(np.prod(shape)), dtype=np.uint64) + np.uint64(len(split) << 32)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words = (z ^ (z >> np.uint64(31))).reshape(num, *shape)
        labels = np.minimum(words[:, 0, 0, 0].astype(np.int64) % (num_classes + 2), num_classes - 1)
        images = (words >> np.uint64(57)).astype(np.uint8)  # up to 127
        for row in range(shape[1]):
            images[labels % shape[1] == row, :, row] += 100
        if dtype == "uint8":
            return images, labels
        # 24 random bits each, times a power of two: exact.
        noise = (words >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
        return images.astype(np.float32) / np.float32(64) + noise, labels

    return make


@dataclass(frozen=True)
class Training:
    """A training: its network, its images, and the keys of its configuration below `training` and `data`."""

    network: Layers
    make_examples: Callable[[str, int], Examples] = _digits
    settings: Mapping[str, Any] = field(default_factory=dict)
    num_steps: int = 6
    data: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """Return the configuration."""
        return {
            "name": "golden",
            "data": {"name": "memory"} | dict(self.data),
            "network": self.network,
            "training": {"epochs": 4, "max_steps": self.num_steps, "optimizer": {"lr": 0.003}} | dict(self.settings),
            "logging": {"every_steps": 1, "plots": False},
        }


def _conv(filters: int, kernel: int | list[int], **options: Any) -> dict[str, Any]:
    return {"conv": {"filters": filters, "kernel": kernel, **options}}


def _dense(units: int) -> dict[str, Any]:
    return {"dense": {"units": units}}


def _pool(window: int | list[int], **options: Any) -> dict[str, Any]:
    return {"max_pool": {"window": window, **options}}


_DROPOUT = {"dropout": {"rate": 0.3}}
_PRIVATE: dict[str, Any] = {
    "per_example": {"clip": 1.0},
    "privacy": {"source": "seeded", "noise_multiplier": 0.8, "delta": 1e-3},
}
_FLOAT64 = {"kernels": "loops", "dtype": "float64"}
_MNIST: Layers = [_conv(8, 5), "relu", _conv(8, 5), "relu", _pool(2), "flatten", _dense(128), "relu", _dense(10)]
_SMALL: Layers = [_conv(4, 5), "relu", _pool(4), "flatten", _dense(10)]
_ALL_LAYERS: Layers = [
    *(_conv(5, [3, 2], stride=[2, 1], padding=[1, 2]), "relu", _pool(3, stride=2)),
    *(_conv(7, 2, padding=1), _pool([2, 3], stride=[1, 2]), "relu", _conv(3, 2), "relu"),
    *("flatten", _DROPOUT, _dense(11), "relu", _dense(6)),
]
_GROUPED: Layers = [
    *(_conv(12, 3, padding=1, bias=False), "relu", _conv(12, 3, groups=12, dilation=2), "relu", _conv(20, 1, groups=4)),
    *("relu", _pool(3, stride=2, padding=1), {"avg_pool": {"window": 2, "padding": 1}}, "global_avg_pool", _dense(6)),
]


def _residual_blocks(normalisation: str | dict[str, Any], activation: str | dict[str, Any]) -> Layers:
    body = [
        _conv(8, 3, padding=1, stride=2, bias=False), normalisation, activation,
        _conv(8, 3, padding=1, bias=False), normalisation,
    ]  # fmt: skip
    shortcut = [_conv(8, 1, stride=2, bias=False), normalisation]
    return [
        *(_conv(8, 3, padding=1, bias=False), normalisation, activation),
        *({"residual": {"body": body, "shortcut": shortcut}}, activation),
        *({"residual": {"body": [_conv(8, 3, padding=1), "relu"]}}, "global_avg_pool", _dense(6)),
    ]


TRAININGS: Mapping[str, Training] = {
    "as mnist.yaml": Training(_MNIST, settings={"schedule": {"name": "cosine", "warmup_steps": 3}}, num_steps=10),
    "as lenet5.yaml": Training(
        [
            *(_conv(6, 5, padding=2), "relu", _pool(2), _conv(16, 5), "relu", _pool(2)),
            *("flatten", _dense(120), "relu", _dense(84), "relu", _dense(10)),
        ],
        settings={"schedule": {"name": "step", "every_steps": 2, "factor": 0.3}},
        num_steps=10,
    ),
    "3x3 convolutions, padded": Training(
        [
            *(_conv(16, 3, padding=1), "relu", _conv(32, 3, padding=1), "relu", _pool(2)),
            *(_conv(24, 3), "relu", _pool(2), "flatten", _dense(32), "relu", _dense(5)),
        ],
        _patterns((3, 17, 19), 5, "uint8"),
    ),
    "all layers, a batch that nothing divides": Training(
        _ALL_LAYERS, _patterns((3, 19, 14), 6, "uint8"), {"batch_size": 37, "tile": 5}
    ),
    "single filters, large stride": Training(
        [_conv(1, 4, stride=3, padding=3), "relu", _conv(2, 1), _pool(2), "flatten", _dense(10)],
        settings={"batch_size": 5, "tile": 7},
    ),
    "float32 images": Training(_ALL_LAYERS, _patterns((2, 23, 15), 6, "float32")),
    "dense layers with up to 47 inputs": Training(
        ["flatten", _dense(20), "relu", _dense(47), "relu", _dense(3)],
        _patterns((1, 6, 6), 3, "uint8"),
        {"optimizer": {"lr": 0.01, "beta1": 0.85, "beta2": 0.97, "eps": 1e-6, "weight_decay": 0.05}},
    ),
    "dense layers with 40 to 160 inputs": Training(
        ["flatten", _dense(160), "relu", _dense(41), "relu", _dense(97), "relu", _dense(4)],
        _patterns((1, 7, 9), 4, "float32"),
        {"batch_size": 33},
    ),
    "clipping and statistics": Training(
        _MNIST, settings={"per_example": {"clip": 0.75, "statistics": True, "by_layer": True}, "batch_size": 20}
    ),
    "augmentation and dropout": Training(
        [*_SMALL[:-1], _DROPOUT, _dense(24), "relu", _DROPOUT, _dense(10)],
        settings={
            "augment": {"shift": [1, 2.5], "rotation": 12, "scale": 0.15, "elastic": {"alpha": 18, "sigma": 3.5}},
        },
    ),
    "class weights and wrong labels": Training(
        _SMALL, settings={"class_weights": "balanced"}, data={"label_noise": 0.1}
    ),
    "seeded privacy": Training(_SMALL, settings=_PRIVATE),
    "loops in float32": Training(_ALL_LAYERS, _patterns((1, 16, 13), 6, "uint8"), {"kernels": "loops"}),
    "loops in float64": Training(
        _SMALL,
        settings={
            **_FLOAT64,
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "per_example": {"clip": 2.0},
            "augment": {"rotation": 20},
        },
    ),
    # In float64 no rounding hides a difference in the last bit of a normal number.
    "seeded privacy, loops in float64": Training(_SMALL, settings=_PRIVATE | _FLOAT64),
    "groups, dilation, average pooling": Training(_GROUPED, _patterns((3, 19, 14), 6, "uint8")),
    "residual layers, batch normalisation, SGD": Training(
        _residual_blocks("batch_norm", "relu"),
        _patterns((3, 16, 13), 6, "uint8"),
        {
            **{"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}},
            **{"schedule": {"name": "one_cycle"}, "tile": 8, "batch_size": 40},
        },
    ),
    "residual layers, group normalisation, clipping": Training(
        _residual_blocks({"group_norm": {"groups": 2}}, "silu"),
        _patterns((3, 16, 13), 6, "uint8"),
        {"per_example": {"clip": 1.5, "statistics": True}, "schedule": {"name": "linear"}},
    ),
    "activations, layer normalisation, Muon": Training(
        [
            *(_conv(6, 5), "gelu", "layer_norm", _pool(2), _conv(6, 3), {"leaky_relu": {"slope": 0.1}}, "flatten"),
            *(_dense(20), "tanh", "layer_norm", _dense(12), {"gelu": {"approximate": "tanh"}}, _dense(9), "sigmoid"),
            _dense(10),
        ],
        settings={"optimizer": {"name": "muon"}, "ema": {"decay": 0.9}, "label_smoothing": 0.1},
    ),
    "mixed images, every change": Training(
        _SMALL,
        settings={
            **{"mixup": {"alpha": 0.3}, "cutmix": {"alpha": 1.0}, "freeze": ["conv1"]},
            "augment": {
                **{"crop": {"padding": 2}, "flip": "horizontal", "brightness": 0.3, "contrast": 0.3},
                **{"erase": {"probability": 0.5}, "rotation": 5},
            },
        },
    ),
    "normalisation and activations, loops in float64": Training(
        _residual_blocks("batch_norm", "gelu"), _patterns((1, 9, 8), 6, "uint8"), {**_FLOAT64, "tile": 8}
    ),
}
