"""Writes YAML that `load_yaml` reads back as the same values."""

from __future__ import annotations

from typing import Any

import yaml

from partrain.config.yaml_loader import FIRST_CHARACTERS_OF_FLOATS, FLOAT_WITH_EXPONENT


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper; writes a text such as 1e3, which the loader would read as a number, in quotes."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT_WITH_EXPONENT, FIRST_CHARACTERS_OF_FLOATS)


def number_text(number: float) -> str:
    """Return a number as people write it in a configuration: 1e-30, not 0.000000000000000000000000000001."""
    if isinstance(number, int):
        return str(number)
    text = f"{number:g}"
    digits, e, exponent = (text if float(text) == number else repr(number)).partition("e")
    return f"{digits}e{int(exponent)}" if e else digits


def dump_yaml(content: Any) -> str:
    """Return plain containers as a YAML document, with keys in their order."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
