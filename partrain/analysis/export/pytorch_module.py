"""The network as Python code: a readable PyTorch module that loads the exported parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import partrain
from partrain.analysis.export.pytorch_layers import LINE_WIDTH, constructors, statements
from partrain.analysis.trained_run import TrainedRun

# The classes of images that Pillow reads, by channels.
_MODES = {1: "L", 3: "RGB"}

_HEAD = '''"""The network of the run {name}, after {steps} steps in partrain {version}.

    {usage}

The parameters are in {weights}, beside this file.
Needs {packages}.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
{functional}from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name({weights_literal})
{class_names}
# Of the pixels of the training images, for each channel.
{mean}
{std}


class Model(nn.Module):
    """Takes {images} (N, {C}, {H}, {W}), and returns logits (N, {E})."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", per_channel(MEAN), persistent=False)
        self.register_buffer("std", per_channel(STD), persistent=False)
{constructors}

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels - self.mean) / self.std
{statements}


def per_channel(values: tuple[float, ...]) -> Tensor:
    """Return values in a shape that broadcasts over images (N, C, H, W)."""
    return torch.tensor(values).view(-1, 1, 1)


def load_model() -> Model:
    """Return the model with its parameters, ready to predict."""
    model = Model()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()
'''

_PREDICTS_FILES = '''

def read_image(path: str) -> Tensor:
    """Return an image file as pixels (1, {C}, {H}, {W}), upright, over white, resized."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("{mode}").resize(({W}, {H}), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(1, {H}, {W}, {C}).permute(0, 3, 1, 2)


def main(paths: list[str]) -> None:
    if not paths:
        sys.exit(f"usage: python {{sys.argv[0]}} IMAGE...")
    model = load_model()
    for path in paths:
        try:
            pixels = read_image(path)
        except OSError as error:
            print(f"{{path}}: {{error.strerror or 'not an image'}}", file=sys.stderr)
            sys.exit(2)
        with torch.no_grad():
            probabilities = model(pixels).softmax(dim=1)[0]
        best = int(probabilities.argmax())
        print(f"{{path}}: {{CLASS_NAMES[best]}} ({{probabilities[best]:.2%}})")


if __name__ == "__main__":
    main(sys.argv[1:])
'''

_TAKES_ARRAYS = """

if __name__ == "__main__":
    sys.exit(
        "usage: from {module} import load_model\\n"
        "logits = load_model()(images), with {dtype} images (N, {C}, {H}, {W})"
    )
"""


def encode_pytorch(trained: TrainedRun, module: str, weights: str) -> bytes:
    """Return the code of a PyTorch module, formatted as Black and Ruff do.

    Parameters
    ----------
    trained : the network. Its layers keep their names, so that `load_state_dict` takes the exported parameters.
    module : the name of the file without `.py`.
    weights : the name of the file of the parameters, in the same directory.
    """
    C, H, W = trained.network.input_shape
    takes_files = C in _MODES and trained.image_dtype == "uint8"
    forward = _indented(statements(trained.network.layers))
    fields: dict[str, Any] = {
        "name": _in_docstring(trained.run.path.name),
        "version": partrain.__version__,
        "steps": f"{trained.step:,}",
        "packages": "torch, safetensors, and pillow for image files" if takes_files else "torch and safetensors",
        "usage": f"python {module}.py IMAGE..." if takes_files else f"from {module} import load_model",
        "module": module,
        "weights": _in_docstring(weights),
        "weights_literal": _literal(weights),
        "class_names": _tuple("CLASS_NAMES", map(_literal, trained.class_names)),
        "mean": _tuple("MEAN", map(repr, trained.normalisation.mean)),
        "std": _tuple("STD", map(repr, trained.normalisation.std)),
        "images": "pixels from 0 to 255" if trained.image_dtype == "uint8" else "images",
        "dtype": trained.image_dtype,
        "mode": _MODES.get(C),
        "E": trained.network.num_outputs,
        "C": C,
        "H": H,
        "W": W,
        "constructors": _indented(constructors(trained.network.layers)),
        "statements": forward,
        "functional": "import torch.nn.functional as F\n" if "F." in forward else "",
    }
    template = _HEAD + (_PREDICTS_FILES if takes_files else _TAKES_ARRAYS)
    return template.format_map(fields).encode()


def _indented(lines: Iterable[str]) -> str:
    return textwrap.indent("\n".join(lines), " " * 8)


def _tuple(name: str, items: Iterable[str]) -> str:
    """Return the assignment of a tuple: on one line if it fits, otherwise with an item per line."""
    items = list(items)
    line = f"{name} = ({', '.join(items)}{',' * (len(items) == 1)})"
    if len(line) <= LINE_WIDTH:
        return line
    return "\n".join([f"{name} = (", *(f"    {item}," for item in items), ")"])


def _literal(text: str) -> str:
    """Return a string literal with the quotes that Black prefers; characters that cannot be printed are escaped."""
    body = repr(f'"{text}')[2:-1]  # with a double quote inside, repr uses single quotes
    plain = body.replace("\\'", "'")
    if text.count('"') > text.count("'"):
        return f"'{body}'"
    return '"' + plain.replace('"', '\\"') + '"'


def _in_docstring(text: str) -> str:
    """Return text that may stand in a docstring."""
    return repr(text)[1:-1].replace("\\", "\\\\").replace('"', "'")
