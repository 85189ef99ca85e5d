"""`partrain note`: write down something about a run, or print what was written."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from partrain.errors import ConfigError
from partrain.interface.arguments import add_json, add_quiet, add_run
from partrain.interface.command import Command, CommandContext, print_data
from partrain.store.run_directory import RunDirectory, reporting_write_errors
from partrain.store.run_notes import append_note, notes_of
from partrain.system.durable_files import json_text


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("text", nargs="*", metavar="TEXT", help="the note; without a text, the notes are printed")
    add_json(parser)
    add_quiet(parser)


def _run(context: CommandContext) -> None:
    options = context.options
    run = RunDirectory.open(context.find_run())
    if not options.text:
        _print_notes(run, options.json)
        return
    text = " ".join(options.text)
    if not text.strip():
        raise ConfigError("note: the text is empty. Without a text, the notes are printed.")
    with reporting_write_errors(run):
        append_note(run.notes_path, text)
    context.messages.say(f"noted in {run.path}")


def _print_notes(run: RunDirectory, as_json: bool) -> None:
    notes = notes_of(run)
    if as_json:
        print_data(json_text([asdict(note) for note in notes]))
    elif notes:
        print_data("\n".join(f"{note.time}  {note.text}" for note in notes))


COMMAND = Command(
    name="note",
    summary="note something about a run",
    description="Note something about a run, or print its notes. Notes stay in the run; list, compare and its HTML "
    "page show them.",
    example="partrain note last 'augmentation helps, a lower rate does not'",
    add_arguments=_add_arguments,
    run=_run,
)
