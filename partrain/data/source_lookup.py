"""Which data is meant by a word on the command line: a data set's name, a file or folder, or a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from partrain.config.reader import parse_config, read_config
from partrain.config.schema.data import SOURCES_WITH_PATH, Data
from partrain.data.arrays import NAMES_OF_FILES
from partrain.data.idx import FILE_NAMES
from partrain.data.loading import NAMED
from partrain.errors import ConfigError, did_you_mean

SYNTHETIC = "synthetic-digits"
# `Data` is part of a configuration, which needs a network.
_ANY_NETWORK = ["flatten", {"dense": {"units": 1}}]


def read_source(source: str, pictures: Mapping[str, Any]) -> tuple[Data, int]:
    """Return the `data` of a configuration that the word means, and the seed.

    Parameters
    ----------
    source : the name of a data set; an .npz file; a folder of .npy files, of IDX files, or of pictures; or a
        configuration (.yaml), whose `data` is meant.
    pictures : what a folder of pictures is made into: size, channels and on_broken; None where not given.

    Raises
    ------
    ConfigError
        There is no such data set and no such file, or pictures are described where there are none.
    """
    given = {key: value for key, value in pictures.items() if value is not None}
    if source.endswith((".yaml", ".yml")) and not os.path.isdir(source):
        config = read_config(source, [f"data.{key}={_yaml(value)}" for key, value in given.items()])
        return config.data, config.seed
    fields: dict[str, Any] = {"name": _kind_of(source), "when_unavailable": "error"}
    if fields["name"] in SOURCES_WITH_PATH:
        fields["path"] = source
    if given and fields["name"] != "folder":
        raise ConfigError(f"{source}: is {fields['name']}; --size, --channels and --on-broken are for pictures")
    if fields["name"] == "folder" and "size" not in given:
        raise ConfigError(f"{source}: is a folder of pictures; say to what size they are brought, e.g. --size 32,32")
    config = parse_config({"data": fields | given, "network": _ANY_NETWORK}, source=source)
    return config.data, config.seed


def _kind_of(source: str) -> str:
    """Return the data set's name, as `data.name` has it."""
    if os.path.isdir(source):
        there = set(os.listdir(source))
        if there & set(NAMES_OF_FILES):
            return "arrays"
        return "idx" if there & {f"{name}{end}" for name in FILE_NAMES for end in ("", ".gz")} else "folder"
    if os.path.exists(source):
        return "arrays"
    known = (*NAMED, SYNTHETIC)
    if source in known:
        return source
    hint = did_you_mean(source, known) or f"; the data sets are {', '.join(known)}"
    raise ConfigError(f"{source!r}: there is no such data set, and no such file or folder{hint}")


def _yaml(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple | list) else str(value)
