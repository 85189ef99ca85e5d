"""The identity of a configuration: the part of it that decides the results.

Two configurations with the same identity give the same parameters after the same number of steps. One rule says what
belongs to it:

    The identity holds every key of the resolved configuration, except
    1. runtime keys, which never change a result;
    2. horizon keys, which say how long to train;
    3. keys that format 1 gained after its first version, while they have a value that leaves results as they were
       without the key. So a run keeps its identity when the format gains a key.

Sections that are left without keys are left out.

Where the data lies is in the identity, because it always was, but it does not decide the results: identities are
compared without it (`without_location`), and the digest of the data is compared instead.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

RUNTIME_KEYS = (
    "logging",
    "checkpoints",
    "workers",
    "training.per_example.statistics",
    "training.per_example.by_layer",
)
# Where the data lies.
LOCATION_KEY = "data.path"
# With `training.stop_early` or the schedule `plateau`, these decide the results: then they are no runtime keys.
EVALUATION_KEYS = ("logging.evaluate_every_epochs", "logging.evaluate_every_steps")
HORIZON_KEYS = ("training.epochs", "training.max_steps")
# The keys of the third exception, each with its neutral values.
ADDED_KEYS: Mapping[str, tuple[object, ...]] = {
    "data.layout": (None, "channels_first"),
    "data.size": (None,),
    "data.channels": (None,),
    "data.on_broken": (None,),
    "data.label_noise": (0,),
    "data.fold": (None,),
    "training.block": (None,),
    "training.optimizer.weight_decay_exclude": ([],),
    "training.stop_early": (None,),
    "training.ema": (None,),
    "training.freeze": ([],),
    "training.class_weights": (None,),
    "training.per_example.clip": (None, math.inf),
    "training.label_smoothing": (0,),
    "training.augment": (None,),
    "training.augment.crop": (None,),
    "training.augment.flip": (None,),
    "training.augment.brightness": (0,),
    "training.augment.contrast": (0,),
    "training.augment.erase": (None,),
    "training.mixup": (None,),
    "training.cutmix": (None,),
    "training.privacy": (None,),
}
# The same for the keys of layers.
ADDED_LAYER_KEYS: Mapping[str, tuple[object, ...]] = {
    "conv.dilation": (1,),
    "conv.groups": (1,),
    "conv.bias": (True,),
    "max_pool.padding": (0,),
}


def identity_of(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a whole configuration, given as plain containers."""
    training = mapping["training"]
    follows_metric = training["stop_early"] is not None or training["schedule"]["name"] == "plateau"
    runtime_exceptions = EVALUATION_KEYS if follows_metric else ()
    identity: dict[str, Any] = {}
    for key, value in _flatten(mapping):
        is_runtime = any(key == runtime or key.startswith(f"{runtime}.") for runtime in RUNTIME_KEYS)
        if is_runtime and key not in runtime_exceptions:
            continue
        if key in HORIZON_KEYS or value in ADDED_KEYS.get(key, ()):
            continue
        *sections, name = key.split(".")
        section = identity
        for parent in sections:
            section = section.setdefault(parent, {})
        section[name] = _without_added_keys(value) if key == "network" else value
    return identity


def _without_added_keys(layers: Any) -> Any:
    """Return the entries of `network`, or of a part of it, without keys of the third exception."""
    if isinstance(layers, list):
        return [_without_added_keys(layer) for layer in layers]
    if not isinstance(layers, dict):
        return layers
    return {
        kind: {
            name: _without_added_keys(value)
            for name, value in fields.items()
            if value not in ADDED_LAYER_KEYS.get(f"{kind}.{name}", ())
        }
        for kind, fields in layers.items()
    }


def without_location(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without the place of the data."""
    section, name = LOCATION_KEY.split(".")
    return {**identity, section: {key: value for key, value in identity[section].items() if key != name}}


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity as canonical JSON, in hexadecimal."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every key whose value is not a mapping itself."""
    for name, value in mapping.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
