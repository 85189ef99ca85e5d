"""Loads YAML safely, and as a configuration needs it.

PyYAML reads YAML 1.1. Where that is surprising, this loader reads values as YAML 1.2 does, or refuses them:

- `1e-3` is a number, not a text.
- `010` (8 in YAML 1.1, 10 in YAML 1.2) and `1:30` (90 in YAML 1.1, a text in YAML 1.2) are errors that say what to
  write.
- A repeated key is an error, and so is a key that is not a text.

`1_000`, `0b11`, `yes`, `off` and dates are read as in YAML 1.1. That gives no wrong value: for YAML 1.2 they are texts,
and where the schema expects a text, it refuses a number, a boolean or a date.

Source: https://yaml.org/type/int.html, https://yaml.org/type/float.html, https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from partrain.errors import ConfigError

# Numbers with an exponent; YAML 1.1 wants a point and a sign in them as well.
FLOAT_WITH_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
FIRST_CHARACTERS_OF_FLOATS = list("-+.0123456789")

# No value of a configuration needs more, and Python refuses to print integers of more than 4,300 digits.
_MAX_NUMBER_CHARACTERS = 100

_INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "merge"))


class _AmbiguousNumber(yaml.MarkedYAMLError):
    """A number that the versions of YAML read differently."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with numbers as in YAML 1.2; keys must be text, and each may appear only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="expected a mapping here", problem_mark=node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = self.construct_scalar(node)
        if len(text) > _MAX_NUMBER_CHARACTERS:
            problem = f"a number of {len(text):,} characters is too long"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        value: int | float = self.construct_yaml_int(node) if node.tag == _INT else self.construct_yaml_float(node)
        if ":" in text:
            problem = f"{text} is {value} in YAML 1.1 and a text in YAML 1.2; write {value}, or '{text}' in quotes"
            raise _AmbiguousNumber(problem=problem, problem_mark=node.start_mark)
        if re.fullmatch(r"[-+]?0[0-7_]+", text) and value != (decimal := int(text.replace("_", ""))):
            problem = f"{text} is {value} in YAML 1.1 and {decimal} in YAML 1.2; write {value} or {decimal}"
            raise _AmbiguousNumber(problem=problem, problem_mark=node.start_mark)
        return value


_Loader.add_implicit_resolver(_FLOAT, FLOAT_WITH_EXPONENT, FIRST_CHARACTERS_OF_FLOATS)
_Loader.add_constructor(_INT, _Loader.construct_number)
_Loader.add_constructor(_FLOAT, _Loader.construct_number)


def load_yaml(text: str, source: str) -> Any:
    """Return what a YAML document holds, as plain containers.

    Parameters
    ----------
    text : the document.
    source : the name used in error messages, such as its file.

    Raises
    ------
    ConfigError
        The text is not valid YAML, or contains a number that YAML 1.1 and 1.2 read differently; names the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark and "\n" in text else ""
        invalid = "" if isinstance(error, _AmbiguousNumber) else " is not valid YAML"
        raise ConfigError(f"{source}{invalid}: {error.problem}{place}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not valid YAML: nested too deeply") from error
    # YAML's own constructors raise the last four, for values such as 2026-13-45, 0x_ and !!bool perhaps.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
