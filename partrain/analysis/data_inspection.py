"""Describes a data set: examples per class, balance, and images that appear in more than one split.

Shapes: N examples; E classes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import Dataset, Split
from partrain.data.image_tree import describe_ignored
from partrain.data.mapped_arrays import release_pages
from partrain.errors import MissingPackage
from partrain.system.terminal_text import printable, table

# How many duplicates are listed, how many classes are printed, and how many the sheet shows.
MAX_LISTED = 5
MAX_PRINTED_CLASSES = 60
SHEET_CLASSES = 100
# After so many images the memory of a mapped file is released.
_IMAGES_PER_PIECE = 4096


def inspect(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of a data set, ready for JSON.

    Returns
    -------
    name, source, digest; shape (C,H,W) and dtype of the images; skipped, the number of unusable image files;
    ignored, the numbers of files that are no images, by their suffix;
    examples : the number of examples of each split;
    classes : the names;
    counts : for each split, the number of examples of each class;
    balance : the number of training examples of the most frequent class, divided by that of the least frequent class;
        null if a class has none;
    duplicates : for each pair of splits, how many images of the later split also appear in the earlier one, and the
        indices of the first of them, and their files.
    """
    E = len(dataset.class_names)
    splits = {name.value: split for name, split in dataset.splits.items()}
    counts = {name: np.bincount(split.labels, minlength=E).tolist() for name, split in splits.items()}
    most, least = max(counts["train"]), min(counts["train"])
    return {
        "name": dataset.name,
        "source": dataset.source,
        "digest": dataset.digest,
        "shape": list(dataset.image_shape),
        "dtype": dataset.image_dtype,
        "skipped": len(dataset.skipped),
        "ignored": dict(dataset.ignored),
        "examples": {name: split.size for name, split in splits.items()},
        "classes": list(dataset.class_names),
        "counts": counts,
        "balance": most / least if least else None,
        "duplicates": _duplicates(splits),
    }


def _duplicates(splits: Mapping[str, Split]) -> list[dict[str, Any]]:
    digests = {name: _digests_of_images(split.images) for name, split in splits.items()}
    found = []
    for earlier, later in itertools.combinations(digests, 2):
        places = np.flatnonzero(np.isin(digests[later], digests[earlier]))
        first = places[:MAX_LISTED].tolist()
        files = [file for index in first for file in splits[later].file_entry(index).values()]
        pair = {"of": later, "in": earlier, "count": len(places), "first": first}
        found.append(pair | ({"files": files} if files else {}))
    return found


def _digests_of_images(images_NCHW: NDArray[Any]) -> NDArray[np.uint64]:
    """Return 8 bytes of BLAKE2 per image; among ten million images, the chance of a collision is 1 in 400,000."""
    digests = np.empty(len(images_NCHW), np.uint64)
    for index, image_CHW in enumerate(images_NCHW):
        content = np.ascontiguousarray(image_CHW).data
        digests[index] = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        if index % _IMAGES_PER_PIECE == 0:
            release_pages(images_NCHW)
    return digests


def describe(facts: Mapping[str, Any]) -> str:
    """Return the facts as text for a terminal."""
    C, H, W = facts["shape"]
    splits = list(facts["examples"])
    lines = [
        f"{facts['name']} from {printable(facts['source'])}",
        f"digest {facts['digest']}",
        f"images {facts['dtype']}, {C} x {H} x {W}",
        ", ".join(f"{count:,} {name}" for name, count in facts["examples"].items()),
    ]
    if facts["skipped"]:
        lines.append(f"unusable image files, skipped: {facts['skipped']:,}")
    if facts["ignored"]:
        lines.append(describe_ignored(facts["ignored"]))
    num_train = max(1, facts["examples"]["train"])
    rows = [
        (printable(name), *(f"{facts['counts'][split][k]:,}" for split in splits), f"{count / num_train:.1%}")
        for k, (name, count) in enumerate(zip(facts["classes"], facts["counts"]["train"], strict=True))
    ]
    num_more = len(rows) - MAX_PRINTED_CLASSES
    lines += ["", *table(("class", *splits, "of train"), rows[:MAX_PRINTED_CLASSES])]
    lines += [f"… and {num_more:,} more classes"] if num_more > 0 else []
    lines += ["", _describe_balance(facts["balance"])]
    for pair in facts["duplicates"]:
        indices = f", at index {', '.join(map(str, pair['first']))}" if pair["first"] else ""
        more = ", …" if pair["count"] > len(pair["first"]) else ""
        more += f" ({', '.join(map(printable, pair['files']))})" if "files" in pair else ""
        lines.append(f"images of {pair['of']} that also appear in {pair['in']}: {pair['count']:,}{indices}{more}")
    return "\n".join(lines)


def _describe_balance(balance: float | None) -> str:
    if balance is None:
        return "balance: a class has no training examples"
    return f"balance: the most frequent class has {balance:.2f} times as many training examples as the least frequent"


def write_sheet(dataset: Dataset, path: Path) -> None:
    """Draw the first training examples of each class into a PNG file.

    Raises
    ------
    MissingPackage
        matplotlib is not installed.
    ConfigError, ResourceError
        The file cannot be written (see `write_output_file`).
    """
    try:
        from partrain.analysis.plots import canvas
    except ModuleNotFoundError:
        raise MissingPackage("matplotlib", "plots", "drawing examples") from None
    from partrain.analysis.plots.class_labels import ClassLabels
    from partrain.analysis.plots.image_sheets import draw_examples, examples_per_class
    from partrain.store.output_files import write_output_file

    train = dataset.train
    num_classes = min(len(dataset.class_names), SHEET_CLASSES)
    rows = []
    for label in range(num_classes):
        places = np.flatnonzero(train.labels == label)[: examples_per_class(num_classes)]
        rows.append([np.array(train.images[place]) for place in places])
    num_more = len(dataset.class_names) - len(rows)
    with canvas.house_style():
        figure = draw_examples(rows, ClassLabels.of(dataset.class_names[: len(rows)]), dataset.name, num_more)
        write_output_file(path, canvas.to_png(figure), "--sheet")
