"""Writes a directory of images like users have: several formats and modes, names in any script, some files broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from partrain.data.synthetic_digits import draw_digits

CLASS_NAMES = ("null 0", "uno", "δύο", "три", "四", "five", "ستة", "सात", "acht", "nueve ñ")
BROKEN = (b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40)


def write_images(folder: Path, num_images: int, *, num_broken: int = 0, seed: int = 0) -> Path:
    """Write digits into a subdirectory per class: PNG, JPEG, BMP and WebP; colour, grey, with alpha, with a palette.

    Parameters
    ----------
    num_images : the number of images that can be decoded.
    num_broken : the number of further images that cannot be decoded.
    """
    images, labels = draw_digits(0, num_images, seed=seed, split="train")
    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images[:, 0], labels.tolist(), strict=True)):
        file, ending = _as_file(image, index)
        file.save(folder / CLASS_NAMES[label] / f"{index} {'ß é'[index % 3]}.{ending}")
    for index in range(num_broken):
        (folder / CLASS_NAMES[index % 10] / f"broken {index}.png").write_bytes(BROKEN[index % len(BROKEN)])
    (folder / CLASS_NAMES[0] / "notes.txt").write_text("no image")
    (folder / CLASS_NAMES[0] / ".hidden.png").write_text("no image")
    return folder


def _as_file(image_HW: NDArray[np.uint8], index: int) -> tuple[PIL.Image.Image, str]:
    grey = PIL.Image.fromarray(image_HW)
    ending = ("png", "jpg", "bmp", "PNG", "webp")[index % 5]
    if ending == "PNG":  # ink is opaque: over white, dark on light
        return PIL.Image.merge("LA", (PIL.Image.fromarray(255 - image_HW), grey)), ending
    if ending == "png" and index % 10 == 0:
        return grey.convert("P"), ending
    return (grey if index % 2 else grey.convert("RGB")), ending
