"""`partrain completion`."""

from __future__ import annotations

import re
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


@pytest.fixture
def runs(tmp_path: Path) -> None:
    """Runs in `runs` and in `elsewhere`, a sweep, and a directory that is neither."""
    for run in ("runs/one", "runs/one more", "elsewhere/other"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "run.json").touch()
    (tmp_path / "runs" / "of three").mkdir()
    (tmp_path / "runs" / "of three" / "sweep.json").touch()
    (tmp_path / "runs" / "on").mkdir()
    (tmp_path / "my.safetensors").touch()


RUN_WORDS = [
    (["evaluate", "o"], None, {"one", "one more", "of three"}),
    (["compare", "last", "o"], None, {"one", "one more", "of three"}),
    (["list", "of"], None, {"of three"}),
    (["--init-from", "l"], None, {"last"}),
    (["--init-from", "m"], None, {"my.safetensors"}),
    (["note", "--runs-dir", "elsewhere", "o"], None, {"other"}),
    (["note", "o"], "elsewhere", {"other"}),
    (["note", "e"], None, {"elsewhere"}),
]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("words", "runs_dir", "expected"), RUN_WORDS)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_names_of_runs_are_completed(
    script: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: str,
    words: list[str],
    runs_dir: str | None,
    expected: set[str],
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if runs_dir is not None:
        monkeypatch.setenv("PARTRAIN_RUNS_DIR", runs_dir)
    path = str(script(shell))
    command = ["bash", "-c", COMPLETE_IN_BASH, "bash", path, "partrain", *words]
    if shell == "fish":
        command = ["fish", "--no-config", "-c", f"source {path}; complete -C 'partrain {' '.join(words)}'"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    found = {line.partition("\t")[0].rstrip("/") for line in ended.stdout.splitlines()}
    # fish also offers directories that contain the word.
    assert {word for word in found if word.startswith(words[-1])} == expected


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
    text = path.read_text()
    assert text.startswith("#compdef partrain\n")
    assert re.search(r'^  "\*:a path, the name of a run.*:_partrain_runs"$', text, re.MULTILINE), "one of several runs"
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
