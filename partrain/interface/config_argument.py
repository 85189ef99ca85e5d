"""The argument `config` of functions of the Python API: a file, an example's name, a mapping, or a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from partrain.config.example_files import find_config
from partrain.config.reader import parse_config, read_mapping
from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.data.image_arrays import Layout
from partrain.errors import ConfigError
from partrain.interface.memory_data import IN_MEMORY, Examples, training_data
from partrain.store.run_name import validate_run_name

ConfigArgument = str | os.PathLike[str] | Mapping[str, Any] | Config


def read_training(
    config: ConfigArgument,
    data: Examples | None,
    test: Examples | None,
    class_names: Sequence[str] | None,
    layout: Layout,
    say: Callable[[str], None],
) -> tuple[Config, Dataset | None]:
    """Return the configuration of a training, and its data set if it is in memory.

    The parameters are those of `partrain.train`, and `say` of `config_mapping`.

    Raises
    ------
    ConfigError, DataError
        An argument is invalid.
    """
    if data is None and (test is not None or class_names is not None):
        raise ConfigError("train: test and class_names require data")
    resolved = read_config_argument(config, say, in_memory=data is not None, layout=layout)
    dataset = None if data is None else training_data(data, test, class_names, resolved.data.layout)
    validate_run_name(resolved.name)
    return resolved, dataset


def read_config_argument(
    config: ConfigArgument, say: Callable[[str], None], *, in_memory: bool, layout: Layout = None
) -> Config:
    """Return the configuration that the argument stands for; parameters are those of `config_mapping`.

    Raises
    ------
    ConfigError
        It is no configuration, or has errors; the message lists them.
    """
    mapping, source = config_mapping(config, say, in_memory=in_memory, layout=layout)
    return parse_config(mapping, source=source)


def config_mapping(
    config: ConfigArgument, say: Callable[[str], None], *, in_memory: bool, layout: Layout = None
) -> tuple[dict[str, Any], str]:
    """Return the argument as a mapping, which is not checked yet, and its name in messages.

    Parameters
    ----------
    config : the argument; it is not changed.
    say : receives a message if an example configuration is used.
    in_memory : whether the examples are arrays in memory: then they replace the section `data`, unless it is for them.
    layout : replaces `data.layout`.

    Raises
    ------
    ConfigError
        It is no configuration.
    """
    if isinstance(config, str | os.PathLike):
        source = find_config(os.fspath(config), say)
        mapping = read_mapping(source)
    elif isinstance(config, Config):
        source, mapping = "the configuration", config.to_mapping()
    elif isinstance(config, Mapping):
        source, mapping = "the configuration", dict(config)
    else:
        raise ConfigError(f"config: is a {type(config).__name__}, expected a path, a mapping, or a configuration")
    if in_memory:
        section = mapping.get("data")
        if not (isinstance(section, Mapping) and section.get("name") == IN_MEMORY):
            mapping["data"] = {"name": IN_MEMORY}
    section = mapping.get("data")
    if layout is not None and isinstance(section, Mapping):
        mapping["data"] = {**section, "layout": layout}
    return mapping, source
