from __future__ import annotations

import pytest

from partrain.config.reader import read_config
from partrain.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as a configuration file."""

    def read(text, *overrides):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(path, overrides)

    return read


@pytest.fixture
def refusal(read):
    """Return a function that reads a text that must be refused, and returns the message."""

    def refusal(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            read(text, *overrides)
        message = str(caught.value)
        assert "config.yaml" in message or "--set" in message
        assert "Traceback" not in message
        return message

    return refusal
