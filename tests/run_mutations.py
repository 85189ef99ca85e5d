"""Mutations of the files of a run, for Hypothesis: what other programs, versions, disks and people may leave there."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

# Values that are valid JSON and that no run contains.
EXTREMES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2, 50.5, 1e307, -1e307, 1e-320, float("inf"), float("nan"), 2**31, 2**53 + 1, 2**63),
    *(10**30, -(10**30), 10**400, "", "NaN", "\ud800", "\x1b[2J", "=1+1", "../../x", "\0", 500 * "x", [], {}, [[]]),
    *([1, 2, 3], [None], {"a": None}, {"\ud800": 1}, [1e307, 10**400], "0001-01-01T00:00:00+23:00"),
    *("9999-12-31T23:59:59-23:00", "2026-01-01", "1969-12-31T00:00:00+00:00", [[[[[[]]]]]]),
)
values = st.sampled_from(EXTREMES) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutations(draw: Callable[[st.SearchStrategy[Any]], Any], run: Path) -> tuple[str, bytes]:
    """Draw a file of the run, by its path in the run, and the content that a mutation gives it."""
    kind = draw(
        st.sampled_from(["run.json", "summary.json", "evaluation-test.json", "config.yaml", "metrics", "state"])
    )
    if kind == "metrics":
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
        index = draw(st.integers(0, len(lines) - 1))
        line = draw(st.binary(max_size=20)) if draw(st.booleans()) else _json(_edited(draw, json.loads(lines[index])))
        return "metrics.jsonl", b"\n".join([*lines[:index], line, *lines[index + 1 :], b""])
    if kind == "state":
        newest = max((run / "checkpoints").iterdir())
        return f"checkpoints/{newest.name}", _mutated_checkpoint(draw, newest.read_bytes())
    content = (run / kind).read_bytes()
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(content)))
        return kind, content[:place] + draw(st.binary(max_size=4)) + content[place + draw(st.integers(0, 4)) :]
    if kind == "config.yaml":
        return kind, yaml.safe_dump(_edited(draw, yaml.safe_load(content)), sort_keys=False).encode()
    return kind, _json(_edited(draw, json.loads(content)))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _edited(draw: Callable[[st.SearchStrategy[Any]], Any], document: Any) -> Any:
    """Replace, remove or add a value somewhere in nested containers."""
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 9)) == 0:
        return draw(values)
    if isinstance(document, list):
        index = draw(st.integers(0, len(document) - 1))
        return [_edited(draw, item) if k == index else item for k, item in enumerate(document)]
    name = draw(st.sampled_from(sorted(document)))
    match draw(st.integers(0, 5)):
        case 0:
            return {key: value for key, value in document.items() if key != name}
        case 1:
            return document | {draw(st.sampled_from(["\ud800", "a b", "train/x", "step", ""])): draw(values)}
    return document | {name: _edited(draw, document[name])}


def _mutated_checkpoint(draw: Callable[[st.SearchStrategy[Any]], Any], data: bytes) -> bytes:
    """Edit the header or the metadata of a checkpoint, mostly with the digest that belongs to the new content."""
    length = struct.unpack_from("<Q", data)[0]
    header, payload = json.loads(data[8 : 8 + length]), data[8 + length :]
    if draw(st.booleans()):
        metadata = _edited(draw, json.loads(header["__metadata__"]["partrain"]))
        header["__metadata__"]["partrain"] = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    else:
        header = _edited(draw, header)
    text = _json(header)
    changed = struct.pack("<Q", len(text)) + text + payload
    field = re.search(rb'\\"file_sha256\\":\\"([0-9a-f]{64})\\"', text)
    if field is None or draw(st.integers(0, 4)) == 0:
        return changed
    start, end = (8 + place for place in field.span(1))
    blank = changed[:start] + 64 * b"0" + changed[end:]
    return changed[:start] + hashlib.sha256(blank).hexdigest().encode() + changed[end:]
