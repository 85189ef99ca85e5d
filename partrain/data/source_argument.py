"""Interprets the argument NAME|PATH of `partrain data show` and `partrain data pack`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partrain.config.reader import parse_config, read_config
from partrain.config.schema.data import PICTURE_KEYS, SOURCES_WITH_PATH, Data
from partrain.data.array_files import KEYS as ARRAY_KEYS
from partrain.data.file_access import unreadable
from partrain.data.idx import find_idx_files
from partrain.data.loading import NAMED
from partrain.errors import ConfigError, did_you_mean

SYNTHETIC = "synthetic-digits"
# `Data` is part of a configuration, which needs a network.
_ANY_NETWORK = ["flatten", {"dense": {"units": 1}}]


def read_source(source: str, given: Mapping[str, Any]) -> tuple[Data, int]:
    """Return the section `data` of a configuration that the argument stands for, and the seed.

    Parameters
    ----------
    source : the name of a data set; an .npz file; a directory of .npy files, of IDX files, or of images; or a
        configuration (.yaml), whose section `data` is used.
    given : size, channels and on_broken for a directory of images, layout for arrays; None if an option was not given.

    Raises
    ------
    ConfigError
        There is no such data set and no such file, or an option was given for data that it does not belong to.
    DataError
        A directory cannot be read.
    """
    options = {key: value for key, value in given.items() if value is not None}
    if source.endswith((".yaml", ".yml")) and not os.path.isdir(source):
        config = read_config(source, [f"data.{key}={_yaml(value)}" for key, value in options.items()])
        return config.data, config.seed
    fields: dict[str, Any] = {"name": kind_of(source), "when_unavailable": "error"}
    if fields["name"] in SOURCES_WITH_PATH:
        fields["path"] = source
    if options.keys() & set(PICTURE_KEYS) and fields["name"] != "folder":
        raise ConfigError(f"{source}: is {fields['name']}; --size, --channels and --on-broken are for images")
    if "layout" in options and fields["name"] != "arrays":
        raise ConfigError(f"{source}: is {fields['name']}; --layout is for arrays")
    if fields["name"] == "folder" and "size" not in options:
        raise ConfigError(f"{source}: is a directory of images; give the size to resize them to, e.g. --size 32,32")
    config = parse_config({"data": fields | options, "network": _ANY_NETWORK}, source=source)
    return config.data, config.seed


def kind_of(source: str) -> str:
    """Return the `data.name` of the data set that the argument stands for.

    Raises
    ------
    ConfigError, DataError
        As for `read_source`.
    """
    if os.path.isdir(source):
        try:
            if set(os.listdir(source)) & {f"{key}.npy" for key in ARRAY_KEYS}:
                return "arrays"
            return "idx" if find_idx_files(Path(source)) else "folder"
        except OSError as error:
            raise unreadable(Path(source), error) from None
    if os.path.exists(source):
        return "arrays"
    known = (*NAMED, SYNTHETIC)
    if source in known:
        return source
    hint = did_you_mean(source, known) or f"; the data sets are {', '.join(known)}"
    raise ConfigError(f"{source!r}: there is no such data set, and no such file or directory{hint}")


def _yaml(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple | list) else str(value)
