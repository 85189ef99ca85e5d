"""Draws digits like people do, and what a camera or a scanner makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
from numpy.typing import NDArray

Points = list[tuple[float, float]]
# The strokes of each digit as points (x, y) in a unit square, y downwards, which a smooth line joins.
STROKES: dict[int, list[Points]] = {
    0: [[(0.5, 0.02), (0.22, 0.2), (0.14, 0.55), (0.3, 0.93), (0.55, 0.98), (0.82, 0.7), (0.84, 0.35), (0.5, 0.02)]],
    1: [[(0.3, 0.22), (0.5, 0.05), (0.52, 0.04)], [(0.52, 0.04), (0.5, 0.98)]],
    2: [
        [(0.15, 0.25), (0.3, 0.05), (0.65, 0.05), (0.8, 0.3), (0.55, 0.65), (0.15, 0.95)],
        [(0.15, 0.95), (0.88, 0.93)],
    ],
    3: [
        [(0.18, 0.12), (0.5, 0.02), (0.8, 0.18), (0.7, 0.4), (0.42, 0.47)],
        [(0.42, 0.47), (0.75, 0.55), (0.84, 0.78), (0.55, 0.98), (0.15, 0.88)],
    ],
    4: [[(0.3, 0.05), (0.22, 0.3), (0.15, 0.55)], [(0.15, 0.55), (0.88, 0.52)], [(0.72, 0.05), (0.68, 0.98)]],
    5: [
        [(0.82, 0.05), (0.3, 0.06)],
        [(0.3, 0.06), (0.24, 0.42)],
        [(0.24, 0.42), (0.55, 0.38), (0.82, 0.6), (0.72, 0.9), (0.4, 0.98), (0.14, 0.85)],
    ],
    6: [[(0.68, 0.03), (0.38, 0.25), (0.2, 0.62), (0.3, 0.93), (0.6, 0.97), (0.78, 0.75), (0.6, 0.55), (0.24, 0.7)]],
    7: [[(0.14, 0.08), (0.85, 0.07)], [(0.85, 0.07), (0.55, 0.5), (0.4, 0.98)]],
    8: [
        [(0.72, 0.12), (0.45, 0.03), (0.26, 0.2), (0.5, 0.46), (0.76, 0.72), (0.52, 0.97)],
        [(0.52, 0.97), (0.24, 0.78), (0.48, 0.47), (0.75, 0.25), (0.72, 0.12)],
    ],
    9: [[(0.75, 0.2), (0.5, 0.04), (0.24, 0.22), (0.36, 0.46), (0.7, 0.36), (0.75, 0.2)], [(0.75, 0.2), (0.72, 0.98)]],
}


@dataclass(frozen=True)
class Style:
    """How a digit looks.

    Attributes
    ----------
    size : height and width of the picture, in pixels.
    height : the height of the digit, as a share of the picture's smaller side.
    pen : the width of the line, as a share of the digit's height.
    place : where the centre of the digit is, as shares of height and width.
    paper, ink : colours, red, green and blue.
    slant : how far the top leans to the right, as a share of the height.
    light : how much darker the darkest corner is, 0 to 1.
    shadow : how much darker the part of the picture below a diagonal is, 0 to 1.
    noise : the standard deviation of the camera's noise.
    blur : the radius of the camera's blur, in pixels.
    ruled : the paper has blue lines.
    specks : the number of dark specks on the paper.
    """

    size: tuple[int, int] = (280, 280)
    height: float = 0.6
    pen: float = 0.1
    place: tuple[float, float] = (0.5, 0.5)
    paper: tuple[int, int, int] = (255, 255, 255)
    ink: tuple[int, int, int] = (0, 0, 0)
    slant: float = 0.0
    light: float = 0.0
    shadow: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    ruled: bool = False
    specks: int = 0


STYLES = {
    "drawn in a paint program": Style(),
    "white on black": Style(paper=(0, 0, 0), ink=(255, 255, 255)),
    "small, in a corner": Style(height=0.25, place=(0.25, 0.75)),
    "fills the picture": Style(height=0.94, pen=0.14),
    "of 28 x 28 pixels": Style(size=(28, 28), height=0.85, pen=0.1),
    "of 64 x 48 pixels, off centre": Style(size=(64, 48), height=0.7, place=(0.6, 0.45)),
    "thick marker": Style(pen=0.2),
    "fine pen, scanned": Style(size=(900, 700), pen=0.03, paper=(246, 244, 240), ink=(30, 30, 60), noise=3),
    "pencil": Style(paper=(225, 222, 215), ink=(140, 140, 140), pen=0.05, noise=4, blur=1),
    "ballpoint on grey paper": Style(paper=(170, 165, 160), ink=(40, 50, 120), pen=0.06, noise=6, blur=1),
    "photograph with a dark corner": Style(paper=(200, 190, 175), ink=(50, 50, 60), light=0.5, noise=8, blur=1.5),
    "photograph with a shadow": Style(paper=(215, 210, 200), ink=(40, 40, 40), shadow=0.4, noise=6, blur=1),
    "dim photograph": Style(paper=(95, 85, 70), ink=(30, 25, 25), light=0.3, noise=5, blur=1),
    "ruled paper": Style(size=(400, 400), paper=(240, 240, 235), ink=(20, 20, 60), ruled=True, noise=4),
    "specks": Style(paper=(235, 230, 225), ink=(30, 30, 30), specks=25, noise=3),
    "red on yellow": Style(paper=(250, 230, 110), ink=(180, 20, 30), noise=3),
    "chalk on a board": Style(paper=(40, 62, 50), ink=(215, 220, 215), light=0.4, noise=8, blur=1),
    "slanted, wide picture": Style(size=(240, 420), slant=0.25, pen=0.08, place=(0.45, 0.3)),
}


def draw(digit: int, style: Style, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture of a digit, uint8 (H,W,3)."""
    rng = np.random.Generator(np.random.Philox(key=[digit, seed]))
    height, width = style.size
    scale = 3 if max(style.size) < 500 else 2  # drawn larger, so that the edges are smooth
    ink = PIL.Image.new("L", (width * scale, height * scale))
    _draw_strokes(ink, digit, style, scale, rng)
    if style.specks:
        _draw_specks(ink, style.specks, scale, rng)
    cover = np.asarray(ink.resize((width, height), PIL.Image.Resampling.BOX), np.float64)[:, :, None] / 255
    paper = np.broadcast_to(np.array(style.paper, float), (height, width, 3)).copy()
    if style.ruled:
        paper[height // 16 :: height // 8] = (150, 170, 215)
    picture = paper * (1 - cover) + np.array(style.ink, float) * cover
    rows, columns = np.mgrid[0:height, 0:width] / (np.array([height, width]) - 1)[:, None, None]
    picture *= (1 - style.light * (rows**2 + columns**2) / 2)[:, :, None]
    picture *= np.where(rows + 0.5 * columns > 0.75, 1 - style.shadow, 1)[:, :, None]
    image = PIL.Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if style.blur:
        image = image.filter(PIL.ImageFilter.GaussianBlur(style.blur))
    noisy = np.asarray(image, float) + rng.normal(0, style.noise, (height, width, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _draw_strokes(ink: PIL.Image.Image, digit: int, style: Style, scale: int, rng: np.random.Generator) -> None:
    extent = style.height * min(style.size) * scale
    pen = max(1.0, style.pen * extent)
    centre = np.array([style.place[1] * style.size[1], style.place[0] * style.size[0]]) * scale
    canvas = PIL.ImageDraw.Draw(ink)
    for stroke in STROKES[digit]:
        points = np.array(stroke) + rng.normal(0, 0.012, (len(stroke), 2)) * (len(stroke) > 2)
        if stroke[0] == stroke[-1]:
            points[-1] = points[0]
        curve = _smooth(points) - 0.5
        curve[:, 0] -= style.slant * curve[:, 1]
        curve = curve * extent * np.array([0.8, 1.0]) + centre
        for x, y in curve:
            canvas.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)


def _smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a curve through the points (Catmull-Rom)."""
    before, after = points[:1], points[-1:]
    if len(points) > 3 and (points[0] == points[-1]).all():
        before, after = points[-2:-1], points[1:2]
    padded = np.concatenate([before, points, after])
    pieces = []
    t = np.linspace(0, 1, 25)[:, None]
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(pieces)


def _draw_specks(ink: PIL.Image.Image, number: int, scale: int, rng: np.random.Generator) -> None:
    canvas = PIL.ImageDraw.Draw(ink)
    for x, y in rng.random((number, 2)) * ink.size:
        radius = scale * rng.uniform(0.6, 1.6)
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
