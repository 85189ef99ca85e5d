"""Functions of a Python program that receive metrics while a run trains, and may ask it to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Row = dict[str, Any]
Callback = Callable[[Row], object]


class Callbacks:
    """Calls functions between two steps, after the metrics of the step are logged and its checkpoint is saved.

    They cannot change the bits: they receive copies of the logged rows, as dictionaries.

    Parameters
    ----------
    on_step : called with the row of each logged step.
    on_evaluation : called with the row of each evaluation of the validation examples.

    Attributes
    ----------
    stop_reason : why to stop; None until a function has returned True.
    """

    def __init__(self, on_step: Callback | None = None, on_evaluation: Callback | None = None) -> None:
        self._functions = {"on_step": on_step, "on_evaluation": on_evaluation}
        self._waiting: list[tuple[str, Row]] = []
        self.stop_reason: str | None = None

    @property
    def receive_steps(self) -> bool:
        """Whether a function receives the rows of logged steps."""
        return self._functions["on_step"] is not None

    def add(self, name: str, row: Row) -> None:
        """Remember a row for the next `call` of the function with this name."""
        if self._functions[name] is not None:
            self._waiting.append((name, dict(row)))

    def call(self) -> None:
        """Call the functions with the rows since the last call; what they raise is not caught."""
        while self._waiting:
            name, row = self._waiting.pop(0)
            function = self._functions[name]
            assert function is not None
            answer = function(row)
            # Only True: what list.append, print or dict.setdefault return is no request.
            if isinstance(answer, bool | np.bool_) and answer:
                self.stop_reason = f"{name} returned True"
