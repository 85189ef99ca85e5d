"""The argument `config` of functions of the Python API: a file, an example's name, a mapping, or a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from partrain.config.example_files import find_config
from partrain.config.reader import parse_config, read_mapping
from partrain.config.schema.config import Config
from partrain.data.image_arrays import Layout
from partrain.errors import ConfigError
from partrain.interface.memory_data import IN_MEMORY

ConfigArgument = str | os.PathLike[str] | Mapping[str, Any] | Config


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
