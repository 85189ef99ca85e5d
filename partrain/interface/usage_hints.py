"""Explains mistakes on the command line: names the nearest command or option, or the right form."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from partrain.errors import did_you_mean
from partrain.store.run_paths import RunPaths

# Options of other programs, and the configuration keys that do the same.
_OPTIONS_ELSEWHERE = {
    "learning_rate": "training.optimizer.lr",
    "batch": "training.batch_size",
    "data": "data.path",
    "dataset": "data.name",
}
# Similarity below which a configuration key is not suggested: many keys have short names.
_MIN_SIMILARITY = 0.7


def explain_usage_error(message: str, arguments: Sequence[str], usage: str, commands: Sequence[str]) -> str:
    """Return argparse's message, with the right form of what the user wrote if it can be guessed.

    Parameters
    ----------
    message : argparse's message.
    arguments : the command line without the program's name.
    usage : the usage of the command; it contains all of its options.
    commands : the first words of all commands.
    """
    choice = re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)$", message)
    if choice:
        siblings = re.findall(r"[\w-]+", choice[2])
        return f"there is no command {choice[1]!r}{_form_of_first_word(choice[1], siblings)}"
    choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", message)
    if choice:
        return message + did_you_mean(choice[1], re.findall(r"[^\s,']+", choice[2]))
    if message.endswith("required: COMMAND"):
        program = re.match(r"usage: ([a-z ]+)", usage)
        return f"{message}; {program[1] if program else 'partrain '}--help lists them"
    if message.endswith("required: RUN"):
        return f"{message}; last is the newest run"
    unknown = message.removeprefix("unrecognized arguments: ") != message
    hints = list(_hints(arguments, usage, commands)) if unknown or message.endswith("required: --config") else []
    return "; ".join([message, *dict.fromkeys(hints)])


def _form_of_first_word(word: str, commands: Sequence[str]) -> str:
    if word.endswith((".yaml", ".yml")):
        return f"; to train, write partrain --config {word}"
    if os.path.isfile(RunPaths(Path(word)).run_json_path):
        return f"; it is a run: write the command before it, for example partrain evaluate {word}"
    return did_you_mean(word, commands) or "; partrain --help lists the commands"


def _hints(arguments: Sequence[str], usage: str, commands: Sequence[str]) -> Iterator[str]:
    options = re.findall(r"--[a-z-]+", usage)
    for index, word in enumerate(arguments[1:], 1):
        before = arguments[index - 1]
        option, equals, value = word.partition("=")
        if option.startswith("--") and option not in options:
            following = arguments[index + 1] if index + 1 < len(arguments) else ""
            if not equals:
                value = following if following and not following.startswith("-") else "VALUE"
            yield from _form_of_option(option, value, options)
        elif before in options or word.startswith("-"):
            continue
        elif word.endswith((".yaml", ".yml")) and "--config" in options:
            yield f"write --config {word}"
        elif word in commands and arguments[0] == "train":
            yield f"write the command first: partrain {word} …"
        elif index > 1 and arguments[index - 2] == "--set" and "=" not in before:
            yield f"write --set {before}={word}"
        elif equals and "--set" in options:
            yield f"write --set {word}"


def _form_of_option(option: str, value: str, options: Sequence[str]) -> Iterator[str]:
    """Yield what to write in place of an unknown option: `--set` with a configuration key, or the nearest option."""
    name = option.removeprefix("--")
    if "--set" in options and (keys := _keys_named(name.replace("-", "_"))):
        yield "write " + " or ".join(f"--set {key}={value}" for key in keys)
    elif nearest := difflib.get_close_matches(name, [known.removeprefix("--") for known in options], n=1):
        yield f"did you mean --{nearest[0]}?"


def _keys_named(name: str) -> list[str]:
    """Return the configuration keys that an option of this name may mean."""
    # Brings pydantic, which a command line without a mistake may not need.
    from partrain.config.reference import configuration_keys

    keys = [key.key for key in configuration_keys()]
    if name in _OPTIONS_ELSEWHERE or name in keys:
        return [_OPTIONS_ELSEWHERE.get(name, name)]
    last_parts = dict.fromkeys(key.rpartition(".")[2] for key in keys)
    nearest = difflib.get_close_matches(name, last_parts, n=1, cutoff=_MIN_SIMILARITY)
    return [key for key in keys if nearest and key.rpartition(".")[2] == nearest[0]]
