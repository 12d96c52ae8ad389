"""Text on the report's picture, by Pillow and the font that it brings."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Height of capitals in the font's own size.
_CAPITALS = 0.71
_HALO = 2
# What the font lacks and Unicode does not take apart itself.
_SPELLED = {
    "×": "x",
    "→": "->",
    "–": "-",
    "—": "-",
    "µ": "u",
    "ß": "ss",
    "ø": "o",
    "Ø": "O",
    "æ": "ae",
    "œ": "oe",
    "ł": "l",
    "Ł": "L",
}


@lru_cache(maxsize=32)
def _font(height: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(height / _CAPITALS)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def spelled(text: str) -> str:
    """``text`` in the letters that the font has: accents go, as do super- and subscripts."""
    plain = unicodedata.normalize("NFKD", "".join(_SPELLED.get(c, c) for c in text))
    return "".join(c for c in plain if not unicodedata.combining(c))


def text_width(text: str, height: float) -> float:
    """Pixels that ``text`` takes at a capital height of ``height`` pixels."""
    return _font(height).getlength(spelled(text))


def fit_text(text: str, height: float, width: float) -> str:
    """``text``, shortened in its middle where it would be wider than ``width`` pixels."""
    if text_width(text, height) <= width:
        return text
    keep = len(text) - 1
    while keep > 2 and text_width(text[: keep // 2] + "..." + text[-(keep - keep // 2) :], height) > width:
        keep -= 1
    return text[: keep // 2] + "..." + text[-(keep - keep // 2) :]


def draw_text(
    picture: np.ndarray,
    x: float,
    baseline: float,
    text: str,
    height: float,
    color: tuple[int, int, int],
    *,
    bold: bool = False,
    align: str = "left",
    halo: bool = False,
) -> float:
    """Draw onto an (H, W, 3) float picture; returns the pixel column after the text.

    Args:
        x, baseline: where the text starts (or ends, or has its middle, by ``align``) and its baseline, pixels.
        height: of capitals, pixels.
        halo: a dark outline, for text over images.
    """
    width = text_width(text, height)
    if align != "left":
        x -= width * (0.5 if align == "center" else 1.0)
    # The font has one weight: the same glyphs half a pixel apart.
    pens = (x, x + max(0.5, height / 28)) if bold else (x,)
    if halo:
        _blend(picture, _cover(picture.shape, pens, baseline, text, height, _HALO), (0, 0, 0))
    _blend(picture, _cover(picture.shape, pens, baseline, text, height, 0), color)
    return x + width


def _cover(
    shape: tuple[int, ...], pens: tuple[float, ...], baseline: float, text: str, height: float, outline: int
) -> tuple[np.ndarray, int, int]:
    """(h, w) share of each pixel that the text covers, and the row and column of its corner."""
    margin = outline + 3
    row, column = int(baseline - 1.6 * height) - margin, int(min(pens)) - margin
    size = (int(text_width(text, height) + 2) + 2 * margin, int(2.4 * height) + 2 * margin)
    image = Image.new("L", size)
    for pen in pens:
        layer = Image.new("L", size)
        ImageDraw.Draw(layer).text(
            (pen - column, baseline - row),
            spelled(text),
            fill=255,
            font=_font(height),
            anchor="ls",
            stroke_width=outline,
        )
        image = Image.fromarray(np.maximum(np.asarray(image), np.asarray(layer)))
    return np.asarray(image, dtype=np.float32) / 255, row, column


def _blend(picture: np.ndarray, cover: tuple[np.ndarray, int, int], color: tuple[int, int, int]) -> None:
    alpha, row, column = cover
    r0, c0 = max(row, 0), max(column, 0)
    r1, c1 = min(row + alpha.shape[0], picture.shape[0]), min(column + alpha.shape[1], picture.shape[1])
    if r0 >= r1 or c0 >= c1:
        return
    part = picture[r0:r1, c0:c1]
    part += alpha[r0 - row : r1 - row, c0 - column : c1 - column, None] * (
        np.asarray(color, dtype=picture.dtype) - part
    )
