"""Progress in a notebook, whose kernel has replaced stderr by a stream of its own."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable

import pytest

from partrain.system.messages import Messages
from partrain.system.work_progress import WorkProgress


class KernelStream(io.StringIO):
    """What ipykernel puts in place of stderr: no terminal, and without a descriptor."""

    __module__ = "ipykernel.iostream"


@pytest.fixture
def use_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[], KernelStream]:
    """Put a notebook's stream in place of stderr, to be called in the test; ipywidgets cannot be imported."""

    def use() -> KernelStream:
        stream = KernelStream()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", sys)
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
        for module in ("tqdm.autonotebook", "tqdm.notebook"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return stream

    return use


def test_training_has_a_bar_of_text_without_ipywidgets_and_without_a_warning(
    use_notebook: Callable[[], KernelStream],
) -> None:
    stream = use_notebook()
    messages = Messages(quiet=False)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        progress = messages.progress(first_step=0, last_step=4, num_epochs=1)
        progress.step(1, 1, 0.25, 10)
        messages.say("said")
        progress.close(is_complete=True)
    assert not raised
    assert "step 0/4" in stream.getvalue()
    assert "\nstep" not in stream.getvalue()
    assert "said\n" in stream.getvalue()
    assert "step 1/1" in stream.getvalue().rpartition("\r")[2]  # complete after one step: it stopped early
    assert "ipywidgets" not in stream.getvalue()


def test_other_work_has_a_bar_that_disappears(use_notebook: Callable[[], KernelStream]) -> None:
    stream = use_notebook()
    lines: list[str] = []
    with WorkProgress("compiling", "kernels", 20, lines.append, has_bar=Messages(quiet=False).has_bars) as progress:
        progress.step()
    assert "compiling:   0%" in stream.getvalue()
    assert stream.getvalue().endswith("\r")
    assert not lines


def test_quiet_has_no_bar(use_notebook: Callable[[], KernelStream]) -> None:
    stream = use_notebook()
    assert not Messages(quiet=True).has_bars
    assert stream.getvalue() == ""
