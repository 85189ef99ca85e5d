"""The section `data`: which examples a run trains on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from partrain.config.schema.values import Fraction, NonNegativeInt, PositiveInt, PositivePair, Section

# The data sets that `data.path` belongs to, those that consist of arrays, and the keys of those that consist of images.
SOURCES_WITH_PATH = ("idx", "arrays", "folder")
ARRAY_SOURCES = ("arrays", "memory")
PICTURE_KEYS = ("size", "channels", "on_broken")


class Fold(Section):
    """One of the parts of a cross-validation."""

    number: PositiveInt = Field(description="The number of the fold that is for validation, from 1.")
    of: Annotated[int, Field(ge=2, le=1000)] = Field(description="The number of folds.")

    def checks(self) -> Iterable[Iterator[str]]:
        return (self._problems_of_number(),)

    def _problems_of_number(self) -> Iterator[str]:
        if self.number > self.of:
            yield f"data.fold.number is {self.number}, but there are {self.of} folds"


class Data(Section):
    """Which examples to train on."""

    name: Literal["mnist", "fashion-mnist", "cifar-10", "synthetic-digits", "idx", "arrays", "folder", "memory"] = (
        Field(
            description="The data set. `mnist`, `fashion-mnist` and `cifar-10` are read from this machine or "
            "downloaded; `synthetic-digits` are drawn by partrain; `idx`, `arrays` and `folder` are your own files "
            "at `data.path`; `memory`: arrays passed to `partrain.train`; the Python API sets it.",
        )
    )
    path: str | None = Field(
        None,
        description="Where your own files are. For `idx`, a directory with four files named like MNIST's. For "
        "`arrays`, an `.npz` file or a directory of `.npy` files: `train_images`, `train_labels`, `test_images`, "
        "`test_labels`; images (N,H,W) or (N,C,H,W), uint8 or float32; optionally `class_names`, and `val_images` and "
        "`val_labels`, or `validation_examples` (that many at the end of the training examples are for validation). "
        "For `folder`, a directory with one subdirectory of images per class. `resume --set` may change the path.",
    )
    layout: Literal["channels_first", "channels_last"] | None = Field(
        None,
        description="With arrays: the order of the axes of images with channels, (N,C,H,W) or (N,H,W,C). null: "
        "(N,C,H,W); arrays that look like (N,H,W,C) are an error.",
    )
    size: PositivePair | None = Field(
        None,
        description="With `folder`, where it is required: the size that images are resized to, in pixels. The "
        "aspect ratio is not kept.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="With `folder`: read images as grey (1) or colour (3). With `folder` the default is 3."
    )
    on_broken: Literal["error", "skip"] | None = Field(
        None,
        description="With `folder`: when an image cannot be read, stop with an error or skip the image. With "
        "`folder` the default is `error`.",
    )
    train_examples: PositiveInt | None = Field(
        None,
        description="The number of examples to train on, counted from the beginning of the training file. null: all "
        "that are not used for validation.",
    )
    validation_examples: NonNegativeInt | None = Field(
        None,
        description="The number of examples to validate on; they follow the training examples in the file. null: the "
        "rest of the file. If both numbers are null, the data set decides; if it does not, a sixth of the file is for "
        "validation. A number also means that `val_images` and `val_labels` are not used.",
    )
    fold: Fold | None = Field(
        None,
        description="Divide the training and validation examples for a cross-validation: one of several folds is for "
        "validation, the others are for training, e.g. `{number: 1, of: 5}`. Each class is spread evenly over the "
        "folds, at random; the fold of an example depends on the seed and its position in its class. Validation "
        "examples that the data set has besides are not used. `partrain cross-validate` trains all folds.",
    )
    when_unavailable: Literal["synthetic-digits", "error"] = Field(
        "synthetic-digits",
        description="What to do if a named data set is not on this machine and cannot be downloaded: train on "
        "synthetic digits, with a prominent warning, or stop with an error.",
    )
    label_noise: Fraction = Field(
        0.0,
        description="The fraction of the training examples whose label is replaced by a random other class. The seed "
        "decides which; `run.json` lists them under `data.label_noise`.",
    )

    @classmethod
    def with_defaults(cls, values: Any) -> Any:
        """Fill in the keys for images."""
        if isinstance(values, dict) and values.get("name") == "folder":
            given = {key: value for key, value in values.items() if value is not None}
            return {"channels": 3, "on_broken": "error"} | given
        return values

    def checks(self) -> Iterable[Iterator[str]]:
        return self._problems_of_path(), self._problems_of_layout(), *map(self._problems_of_picture_key, PICTURE_KEYS)

    def _problems_of_path(self) -> Iterator[str]:
        if self.name in SOURCES_WITH_PATH and self.path is None:
            yield f"data.path must say where the data is when data.name is {self.name}"
        if self.name not in SOURCES_WITH_PATH and self.path is not None:
            yield f"data.path goes with data.name {' or '.join(SOURCES_WITH_PATH)}, not with {self.name}"

    def _problems_of_layout(self) -> Iterator[str]:
        if self.name not in ARRAY_SOURCES and self.layout is not None:
            yield f"data.layout goes with data.name {' or '.join(ARRAY_SOURCES)}, not with {self.name}"

    def _problems_of_picture_key(self, key: str) -> Iterator[str]:
        if self.name == "folder" and key == "size" and self.size is None:
            yield "data.size must give the size that images are resized to: a number or [rows, columns]"
        if self.name != "folder" and getattr(self, key) is not None:
            yield f"data.{key} goes with data.name folder, not with {self.name}"
