from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.system.messages import Messages
from partrain.system.standard_streams import is_terminal
from tests.program import ROOT

PREPARE = """
import os, sys
from partrain.system.standard_streams import prepare_standard_streams
prepare_standard_streams()
"""


def run(program: str, redirection: str = "", **environment: str) -> bytes:
    """Run a program after the streams are prepared, with a shell's redirection; return its stdout."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", PREPARE + program]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, timeout=60, check=True).stdout


def test_closed_streams_keep_their_descriptors_from_files(tmp_path: Path) -> None:
    program = f"""
with open({str(tmp_path / "file")!r}, "w") as file:
    assert file.fileno() > 2, file.fileno()
    for descriptor in (1, 2):
        assert os.get_inheritable(descriptor)
        os.write(descriptor, b"x")
print("stdout")
print("stderr", file=sys.stderr)
assert sys.stdin.read() == ""
"""
    assert run(program, "<&- >&- 2>&-") == b""
    assert (tmp_path / "file").read_text() == ""


def test_characters_that_stdout_cannot_encode_are_escaped_as_json_does() -> None:
    text = "größe ≥ 1 \N{GRINNING FACE} \udcff"
    said = run(f"print({json.dumps(text)!r}, end='')", PYTHONIOENCODING="ascii")
    assert json.loads(said) == text
    assert run(f"print({text[:9]!r}, end='')", PYTHONIOENCODING="utf-8") == text[:9].encode()
    assert run(f"print({text!r}, end='')", PYTHONIOENCODING="latin-1").startswith("größe \\u2265".encode("latin-1"))


@pytest.mark.parametrize("is_closed", [False, True], ids=["none", "closed"])
def test_messages_of_a_program_without_stderr_are_only_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_closed: bool
) -> None:
    stream = None
    if is_closed:
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    messages = Messages(quiet=False)
    log: list[str] = []
    messages.attach_log(log.append)
    messages.say("one")
    messages.warn("two")
    progress = messages.progress(first_step=0, last_step=1, num_epochs=1)
    progress.step(1, 1, 0.5, 10)
    progress.close()
    assert log[:2] == ["one", "warning: two"]
    assert capsys.readouterr().out == ""
    assert not is_terminal(stream)
