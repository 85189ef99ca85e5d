"""Nothing that a file, a name or a configuration contains can control the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import yaml

from tests.program import Result
from tests.sample_runs import write_run
from tests.saved_runs import write_saved_run

Call = Callable[..., Result]

# Moves the cursor and clears the screen; with 8-bit codes; sets the title; reverses the text that follows.
HOSTILE = "a\033[2J\x9b2Jb\033]0;title\a\u202ec"
SHOWN = "a\ufffd[2J\ufffd2Jb\ufffd]0;title\ufffd\ufffdc"


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, a data set and configurations with hostile names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_saved_run(Path("runs", HOSTILE))
    write_run(Path("runs/hostile values"), config_changes={"name": HOSTILE})
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text(json.dumps({"format": HOSTILE, "status": HOSTILE}))
    Path("runs/status").mkdir()
    Path("runs/status/run.json").write_text(json.dumps({"format": 1, "status": HOSTILE, "started": HOSTILE}))
    for number in range(30):
        folder = Path("pictures", f"{HOSTILE}{number % 2}")
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (4, 4), number).save(folder / f"{HOSTILE}{number}.png")
    Path("pictures", f"{HOSTILE}0", f"{HOSTILE}.png").write_text("no picture")
    Path(f"{HOSTILE}.npz").write_text("no arrays")
    configuration = {"name": HOSTILE, HOSTILE: HOSTILE, "data": {"name": HOSTILE}}
    Path(f"{HOSTILE}.yaml").write_text(yaml.safe_dump(configuration))
    Path("text.yaml").write_text(f"name: '{HOSTILE}'\n")
    Path("unknown.yaml").write_text('network: [{"a\\e[2Jb": {}}]\n"c\\x9b2Jd": 1\n')


COMMANDS = (
    ("list",),
    ("list", "--json"),
    ("list", "--runs-dir", HOSTILE),
    ("compare", f"runs/{HOSTILE}", "runs/hostile values", "--all"),
    ("compare", f"runs/{HOSTILE}", "runs/hostile values", "--all", "--json"),
    ("compare", "runs/status", "runs/hostile values"),
    ("compare", f"runs/{HOSTILE}", f"./runs/{HOSTILE}"),
    ("compare", f"runs/{HOSTILE}", "runs/hostile values", "--html", HOSTILE),
    ("data", "show", "pictures", "--size", "4"),
    ("data", "show", "pictures", "--size", "4", "--on-broken", "skip", "--sheet", f"{HOSTILE}.png"),
    ("data", "show", "pictures", "--size", "4", "--on-broken", "skip", "--json"),
    ("data", "show", f"{HOSTILE}.npz"),
    ("data", "show", HOSTILE),
    ("data", "verify", HOSTILE),
    ("evaluate", HOSTILE),
    ("examples", f"{HOSTILE}x"),
    ("predict", f"runs/{HOSTILE}", f"{HOSTILE}.png"),
    ("resume", f"{HOSTILE}x"),
    ("export", f"runs/{HOSTILE}", "--to", HOSTILE),
    ("export", f"runs/{HOSTILE}", "--to", "x.npz"),
    ("export", f"runs/{HOSTILE}", "--to", "x", "--format", HOSTILE),
    ("import-article", f"{HOSTILE}.npz"),
    ("train", "--config", f"{HOSTILE}.yaml"),
    ("train", "--config", f"{HOSTILE}x.yaml"),
    ("train", "--config", "text.yaml"),
    ("train", "--config", "unknown.yaml"),
    ("train", "--config", "unknown.yaml", "--set", f"{HOSTILE}={HOSTILE}"),
    ("bench", "--config", "unknown.yaml"),
    ("watch", f"runs/{HOSTILE}"),
    ("watch", "runs/hostile values"),
    ("watch", "runs/status"),
    ("watch", HOSTILE),
    (HOSTILE,),
    ("list", HOSTILE),
    ("list", "--sort", HOSTILE),
    ("list", f"--{HOSTILE}"),
    ("data", HOSTILE),
)


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).encode("unicode_escape").decode())
def test_no_command_prints_characters_that_control_the_terminal(call_partrain: Call, command: tuple[str, ...]) -> None:
    result = call_partrain(*command)
    assert "Traceback" not in result.stderr
    assert is_harmless(result.stdout + result.stderr), result
    assert result.stdout + result.stderr


def test_json_keeps_names_as_they_are(call_partrain: Call) -> None:
    names = {run["name"] for run in json.loads(call_partrain("list", "--json").stdout)}
    assert HOSTILE in names


@pytest.mark.parametrize("is_terminal", [True, False])
def test_path_is_exact_for_a_program_and_printable_on_a_terminal(
    call_partrain: Call, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    result = call_partrain("export", f"runs/{HOSTILE}", "--to", f"{HOSTILE}.npz", "-q")
    assert result.stdout == f"{SHOWN if is_terminal else HOSTILE}.npz\n"
    assert os.path.exists(f"{HOSTILE}.npz")
