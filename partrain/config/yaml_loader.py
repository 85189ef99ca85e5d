"""Loads YAML safely, and as a configuration needs it: `1e-3` is a number, and a repeated key is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from partrain.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with floats as in YAML 1.2; keys must be text, and each may appear only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="expected a mapping here", problem_mark=node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str, source: str) -> Any:
    """Return what a YAML document holds, as plain containers.

    Parameters
    ----------
    text : the document.
    source : the name used in error messages, such as its file.

    Raises
    ------
    ConfigError
        The text is not valid YAML; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{source} is not valid YAML: {error.problem}{place}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not valid YAML: nested too deeply") from error
    # YAML's own constructors raise the last four, for values such as 2026-13-45, 0x_ and !!bool perhaps.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
