"""Numba's settings: variables of the environment, and a file in the current directory. Read without importing Numba."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

# Numba reads this file, if there is one, for settings that the environment does not have.
SETTINGS_FILE = ".numba_config.yaml"


def setting(name: str) -> Any:
    """Return the setting `name`: Numba's own value if Numba is loaded or there is a file of settings, else the text."""
    if "numba.core.config" in sys.modules or Path(SETTINGS_FILE).exists():
        import numba.core.config

        return getattr(numba.core.config, name, None)
    return os.environ.get(f"NUMBA_{name}")


def settings_text(names: tuple[str, ...]) -> str:
    """Return what the environment and the file of settings say, as a text that identifies it."""
    texts = [f"{name}={os.environ.get(f'NUMBA_{name}')}" for name in names]
    with contextlib.suppress(OSError):
        texts.append(Path(SETTINGS_FILE).read_text(errors="replace"))
    return "\0".join(texts)


def is_jit_disabled() -> bool:
    """Return whether Numba is told to compile nothing, by NUMBA_DISABLE_JIT."""
    value = setting("DISABLE_JIT")
    return bool(int(value)) if value else False
