"""`partrain completion`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.program import Result

# Completes the words that follow, as bash does when the tab key is pressed after the last of them.
COMPLETE_IN_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p partrain | sed -E 's/.*-F (\\S+).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(call_partrain: Callable[..., Result], tmp_path: Path) -> Callable[[str], Path]:
    """Write the script for a shell."""

    def write(shell: str) -> Path:
        result = call_partrain("completion", shell)
        assert (result.exit_code, result.stderr) == (0, "")
        (tmp_path / "script").write_text(result.stdout)
        return tmp_path / "script"

    return write


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["com"], {"compare", "completion"}),
        (["data", "f"], {"fetch"}),
        (["list", "--fil"], {"--filter"}),
        (["--conf"], {"--config"}),
        (["--config", "my"], {"my.yaml"}),
        (["evaluate", "ru"], {"runs"}),
        (["evaluate", "last", "--split", "v"], {"validation"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes_commands_options_choices_and_paths(
    script: Callable[[str], Path], tmp_path: Path, words: list[str], expected: set[str]
) -> None:
    (tmp_path / "my.yaml").touch()
    (tmp_path / "runs").mkdir()
    command = ["bash", "-c", COMPLETE_IN_BASH, "bash", str(script("bash")), "partrain", *words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    assert {word.strip() for word in ended.stdout.splitlines()} >= expected


def test_fish_completes_commands_and_options(script: Callable[[str], Path], tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    for line, expected in (("partrain com", "compare"), ("partrain list --fil", "--filter")):
        program = f"source {script('fish')}; complete -C '{line}'"
        ended = subprocess.run(
            [fish, "--no-config", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert expected in ended.stdout.split()


def test_script_for_zsh_is_valid(script: Callable[[str], Path]) -> None:
    path = script("zsh")
    assert path.read_text().startswith("#compdef partrain\n")
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-n", str(path)], check=True, timeout=60)


def test_mistakes_are_reported(call_partrain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = call_partrain("completion", "bsh")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "did you mean bash?" in unknown.stderr
    monkeypatch.setitem(sys.modules, "shtab", None)
    missing = call_partrain("completion", "bash")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "completion needs the package shtab: pip install 'partrain[completion]'" in missing.stderr
