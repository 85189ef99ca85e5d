"""Whatever the files of a run contain, every command ends with its result or with one message."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import partrain
from partrain.errors import UserError
from tests.program import Result
from tests.run_mutations import mutations
from tests.whole_runs import edit_json

Call = Callable[..., Result]

READING = {
    "list": ["list", "--runs-dir", "runs"],
    "list as JSON": ["list", "--runs-dir", "runs", "--json"],
    "compare": ["compare", "runs/run", "good"],
    "compare as JSON": ["compare", "good", "runs/run", "--json"],
    "page": ["compare", "runs/run", "good", "--html", "page.html"],
    "page of one run": ["compare", "runs/run", "--html", "page.html"],
    "export of metrics": ["export", "runs/run", "--to", "metrics.csv"],
    "export of events": ["export", "runs/run", "--to", "events", "--format", "tensorboard"],
    "export of parameters": ["export", "runs/run", "--to", "model.safetensors"],
    "export of arrays": ["export", "runs/run", "--to", "model.npz", "--checkpoint", "best"],
}
COMPUTING = {
    "predict": ["predict", "runs/run", "--index", 3, "-q"],
    "resume": ["resume", "runs/run", "--workers", 0, "--max-steps", 22, "-q"],
}


@pytest.fixture
def place(tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory with a good run, `good`, and an empty directory of runs; it is the working directory."""
    plotly = pytest.importorskip("plotly.offline")
    monkeypatch.setattr(plotly, "get_plotlyjs", str)  # 4 MB, which the page would compress each time
    shutil.copytree(undisturbed, tmp_path / "good")
    (tmp_path / "runs").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        yield tmp_path


def write_run_with(good: Path, file: str, content: bytes) -> Path:
    """Write `runs/run`, a copy of a good run in which one file has other content."""
    run = good.parent / "runs" / "run"
    for path in (run, good.parent / "events"):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(good, run)
    (run / file).write_bytes(content)
    return run


def require_result_or_message(call_partrain: Call, name: str, words: list[Any]) -> Result:
    result = call_partrain(*words)
    assert result.exit_code in (0, 2), (name, result)
    assert result.stderr.count("error: ") == (1 if result.exit_code else 0), (name, result)
    if name.startswith("list"):
        assert result.exit_code == 0, result
    if name.endswith("JSON") and result.exit_code == 0:
        json.loads(result.stdout, parse_constant=pytest.fail)
    return result


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_commands_that_read_a_run_accept_it_or_say_what_is_wrong(
    call_partrain: Call, place: Path, data: st.DataObject
) -> None:
    write_run_with(place / "good", *data.draw(mutations(place / "good")))
    for name, words in READING.items():
        require_result_or_message(call_partrain, name, words)


@pytest.mark.slow
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_commands_that_compute_with_a_run_accept_it_or_say_what_is_wrong(
    call_partrain: Call, place: Path, data: st.DataObject
) -> None:
    write_run_with(place / "good", *data.draw(mutations(place / "good")))
    with contextlib.suppress(UserError):  # the command `evaluate` draws plots as well, which takes seconds
        partrain.open_run("runs/run", quiet=True).evaluate(workers=0)
    for name, words in COMPUTING.items():
        require_result_or_message(call_partrain, name, words)


def aliases(*roots: str) -> str:
    """Return YAML lists that are nested by aliases, 25 deep: a reader that follows them all never ends."""
    lines = ["a0: &a0 {key: [1, 2]}"]
    for depth in range(1, 26):
        entries = ", ".join(root.format(f"*a{depth - 1}") for root in roots)
        lines.append(f"a{depth}: &a{depth} {entries if roots[0].startswith('{{') else f'[{entries}]'}")
    return "\n".join(lines)


BOMBS = {
    "lists": aliases("{}", "{}", "{}"),
    "empty lists": aliases("{}", "{}", "{}").replace("{key: [1, 2]}", "[]"),
    "keys that collide": "\n".join(
        ["a0: &a0 {key: 1}"] + [f"a{n}: &a{n} {{b: {{c: *a{n - 1}}}, b.c: *a{n - 1}}}" for n in range(1, 26)]
    ),
    "pairs": "\n".join(
        ["a0: &a0 !!pairs [k: 1]"] + [f"a{n}: &a{n} !!pairs [k: *a{n - 1}, k: *a{n - 1}]" for n in range(1, 26)]
    ),
    "long keys": "\n".join(
        [f"a0: &a0 {{{5000 * 'k'}: 1}}"] + [f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}" for n in range(1, 26)]
    ),
    "long texts": "\n".join([f"a: &a {50_000 * 'x'}", f"b: [{', '.join(1000 * ['*a'])}]"]),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_nested_aliases_in_a_configuration_do_not_take_forever(call_partrain: Call, place: Path, content: str) -> None:
    write_run_with(place / "good", "config.yaml", content.encode())
    for name in ("list", "compare", "page", "export of parameters"):
        require_result_or_message(call_partrain, name, READING[name])
    assert call_partrain(*READING["compare"]).exit_code == 0


def edited(place: Path, file: str, **changes: Any) -> None:
    """Write `runs/run` with changed entries of one JSON document."""
    run = write_run_with(place / "good", file, (place / "good" / file).read_bytes())
    edit_json(run / file, lambda document: document.update(changes))


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", 5, None])
def test_time_that_is_outside_of_the_calendar_is_no_time(call_partrain: Call, place: Path, moment: object) -> None:
    edited(place, "run.json", started=moment)
    result = require_result_or_message(call_partrain, "list as JSON", READING["list as JSON"])
    (entry,) = json.loads(result.stdout)
    assert (entry["status"], entry["started"]) == ("completed", None)


@pytest.mark.parametrize("number", [1e307, -1e307, 10**400, -(10**30), 2**63])
@pytest.mark.parametrize("field", ["time_s", "examples", "validation/accuracy", "train/loss", "epoch"])
def test_enormous_metrics_are_ignored(call_partrain: Call, place: Path, number: float, field: str) -> None:
    lines = (place / "good" / "metrics.jsonl").read_text().splitlines()
    rows = [json.dumps(json.loads(line) | {field: number}) for line in lines]
    write_run_with(place / "good", "metrics.jsonl", "\n".join([*rows, ""]).encode())
    for name in ("list", "compare as JSON", "page", "export of metrics", "export of events"):
        assert require_result_or_message(call_partrain, name, READING[name]).exit_code == 0


def test_enormous_results_of_runs_with_several_seeds_are_ignored(call_partrain: Call, place: Path) -> None:
    for seed, loss in ((6, 1e307), (7, -1e307), (8, 1e200), (9, 10**400)):
        run = place / "runs" / f"seed-{seed}"
        shutil.copytree(place / "good", run)
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("seed: 5", f"seed: {seed}"))
        edit_json(run / "summary.json", lambda s, loss=loss: s.update(test={"loss": loss, "accuracy": loss}))
    runs = sorted((place / "runs").iterdir())
    assert (
        require_result_or_message(call_partrain, "compare as JSON", ["compare", "good", *runs, "--json"]).exit_code == 0
    )


def test_a_line_with_something_that_is_no_character_is_damaged(call_partrain: Call, place: Path) -> None:
    lines = (place / "good" / "metrics.jsonl").read_bytes().splitlines()
    lines[1] = b'{"step": 2, "train/\\ud800": 1}'
    write_run_with(place / "good", "metrics.jsonl", b"\n".join([*lines, b""]))
    for name in ("export of metrics", "export of events"):
        assert "line 2 is damaged" in require_result_or_message(call_partrain, name, READING[name]).refusal
    assert "1 lines are not metrics" in call_partrain(*READING["compare"]).stdout


@pytest.mark.parametrize("step", [50.5, -1, None, True, 2**63, "1", []])
def test_a_line_whose_step_is_no_whole_number_is_named(call_partrain: Call, place: Path, step: object) -> None:
    lines = (place / "good" / "metrics.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"step": step, "train/loss": 1.0})
    write_run_with(place / "good", "metrics.jsonl", "\n".join([*lines, ""]).encode())
    for name in ("export of metrics", "export of events"):
        refusal = require_result_or_message(call_partrain, name, READING[name]).refusal
        assert f"a line has the step {step!r}, not a whole number" in refusal
    assert "1 lines are not metrics" in call_partrain(*READING["compare"]).stdout


@pytest.mark.parametrize("size", ["Infinity", "1e400", "-1", "2.5", '"3"', "null", "9223372036854775808"])
def test_a_checkpoint_with_an_impossible_shape_is_damaged(call_partrain: Call, place: Path, size: str) -> None:
    header = f'{{"dense1.weight": {{"dtype": "F32", "shape": [{size}, 2], "data_offsets": [0, 8]}}}}'.encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    newest = max((place / "good" / "checkpoints").iterdir())
    write_run_with(place / "good", f"checkpoints/{newest.name}", content)
    result = require_result_or_message(call_partrain, "compare", READING["compare"])
    assert "the number of parameters is unknown" in result.stdout


FILES = ("config.yaml", "metrics.jsonl", "summary.json", "evaluation-test.json", "run.lock", "train.log")


@pytest.mark.parametrize(
    ("file", "kind"),
    [*((file, "pipe") for file in FILES), ("metrics.jsonl", "socket"), ("metrics.jsonl", "link to a device")],
)
def test_a_file_that_a_reader_would_wait_for_is_named(call_partrain: Call, place: Path, file: str, kind: str) -> None:
    run = write_run_with(place / "good", file, b"")
    (run / file).unlink()
    if kind == "pipe":
        os.mkfifo(run / file)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"runs/run/{file}")  # relative, because the name of a socket is short
    else:
        (run / file).symlink_to("/dev/zero")
    assert "is a pipe, a socket or a device" in call_partrain(*READING["list"]).stdout
    for name in ("compare", "export of metrics", "export of parameters"):
        refusal = require_result_or_message(call_partrain, name, READING[name]).refusal
        assert f"{file}: is a pipe, a socket or a device, which is not read" in refusal
    assert f"{file}: is a pipe" in call_partrain("resume", run, "--workers", 0).refusal
