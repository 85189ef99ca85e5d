"""A mistake on the command line gets one message that names the nearest command or option, or the right form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partrain.interface.parser import insert_default_command, parse
from partrain.store.run_directory import RunDirectory
from tests.program import Result

FIRST_WORDS = {
    "evalute last": "there is no command 'evalute'; did you mean evaluate?",
    "configs/mnist.yaml": "to train, write partrain --config configs/mnist.yaml",
    "mnist.yml --workers 2": "to train, write partrain --config mnist.yml",
    "help": "there is no command 'help'; partrain --help lists the commands",
    "data shwo x": "there is no command 'shwo'; did you mean show?",
    "data": "the following arguments are required: COMMAND; partrain data --help lists them",
    "": "the following arguments are required: COMMAND; partrain --help lists them",
}
WITHOUT_CONFIGURATION = {
    "train configs/mnist.yaml": "write --config configs/mnist.yaml",
    "--workers 2 mnist.yaml": "write --config mnist.yaml",
    "--configs mnist.yaml": "did you mean --config?",
    "--runs-dir elsewhere list": "write the command first: partrain list …",
    "-q list": "write the command first: partrain list …",
}
OPTIONS = {
    "--config c --epochs 3": "write --set training.epochs=3",
    "--config c --epochs=3": "write --set training.epochs=3",
    "--config c --lr 1e-3": "write --set training.optimizer.lr=1e-3",
    "--config c --learning-rate 1e-3": "write --set training.optimizer.lr=1e-3",
    "--config c --seed 4": "write --set seed=4",
    "--config c --batch-size 4": "write --set training.batch_size=4",
    "--config c --batch 4": "write --set training.batch_size=4",
    "--config c --batch_sise 4": "write --set training.batch_size=4",
    "--config c --name x": "write --set name=x",
    "--config c --training.tile 2": "write --set training.tile=2",
    "--config c --every-steps 5": "--set logging.every_steps=5 or --set checkpoints.every_steps=5",
    "--config c --statistics": "write --set training.per_example.statistics=VALUE",
    "--config c --filters 8": "write --set network.N.conv.filters=8",
    "--config c --worker 2": "did you mean --workers?",
    "--config c --set training.epochs 3": "write --set training.epochs=3",
    "--config c training.epochs=3": "write --set training.epochs=3",
    "--config c --set seed=1 training.epochs=3": "write --set training.epochs=3",
    "resume last --plots false": "write --set logging.plots=false",
    "evaluate last --checkpont best": "did you mean --checkpoint?",
    "evaluate last --split tst": "did you mean test?",
    "evaluate": "the following arguments are required: RUN; last is the newest run",
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [*FIRST_WORDS.items(), *WITHOUT_CONFIGURATION.items(), *OPTIONS.items()],
)
def test_message_says_what_to_write(call_partrain: Callable[..., Result], words: str, expected: str) -> None:
    refusal = call_partrain(*words.split()).refusal
    assert expected in refusal
    assert refusal.count("\n") == 1


def test_a_run_without_a_command_is_recognised(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    RunDirectory.create_at(tmp_path / "run").write_run_json({"status": "completed"})
    expected = f"it is a run: write the command before it, for example partrain evaluate {tmp_path / 'run'}"
    assert expected in call_partrain(tmp_path / "run").refusal


@pytest.mark.parametrize("words", ["evaluate last --batch-size 3", "--config c --nonsense", "list --lr 3"])
def test_nothing_is_suggested_where_nothing_is_near(call_partrain: Callable[..., Result], words: str) -> None:
    refusal = call_partrain(*words.split()).refusal
    assert "unrecognized arguments" in refusal
    assert "--set" not in refusal
    assert "did you mean" not in refusal


WORDS = [
    "train",
    "resume",
    "export",
    "data",
    "show",
    "list",
    "x.yaml",
    "last",
    "a=b",
    "training.epochs",
    "3",
    "",
    "-",
    "--",
]
OPTION_WORDS = [
    "--config",
    "--set",
    "--set=",
    "--epochs",
    "--lr",
    "--=",
    "--x=",
    "--runs-dir",
    "--checkpoint",
    "-q",
    "-h2",
]


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(WORDS + OPTION_WORDS), max_size=6))
def test_any_command_line_is_parsed_or_refused_with_one_message(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with contextlib.suppress(SystemExit):
        parse(insert_default_command(words))
    assert capsys.readouterr().err.count("error: ") <= 1
