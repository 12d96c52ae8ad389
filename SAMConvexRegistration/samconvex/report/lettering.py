"""A small line font, drawn for this project: crisp text at any size without a font file or a drawing library."""

from __future__ import annotations

from functools import cache, lru_cache
from math import ceil, cos, pi, sin

import numpy as np

# Units: capitals are 7 high on the baseline 0, small letters 5. Strokes are split by ";", points are "x,y"; an arc
# is "@center x,center y,radius x,radius y,first degree,last degree" and continues its stroke.
_CIRCLE = "@1.9,2.5,1.9,2.5,0,360"
_GLYPHS = {
    "A": "0,0 2.5,7 5,0;0.9,2.4 4.1,2.4",
    "B": "0,0 0,7 2.2,7 @2.2,5.3,1.8,1.7,90,-90 0,3.6;2.2,3.6 @2.4,1.8,2,1.8,90,-90 0,0",
    "C": "@2.8,3.5,2.8,3.5,48,312",
    "D": "0,0 0,7 1.6,7 @1.6,3.5,3.2,3.5,90,-90 0,0",
    "E": "4,7 0,7 0,0 4,0;0,3.6 3.4,3.6",
    "F": "4,7 0,7 0,0;0,3.6 3.3,3.6",
    "G": "@2.8,3.5,2.8,3.5,48,360 3.2,3.5",
    "H": "0,0 0,7;4.8,0 4.8,7;0,3.6 4.8,3.6",
    "I": "0,0 0,7",
    "J": "3,7 3,1.8 @1.5,1.8,1.5,1.8,0,-170",
    "K": "0,0 0,7;4.4,7 0,2.6;1.6,4.2 4.6,0",
    "L": "0,7 0,0 3.8,0",
    "M": "0,0 0,7 2.9,2 5.8,7 5.8,0",
    "N": "0,0 0,7 4.8,0 4.8,7",
    "O": "@2.8,3.5,2.8,3.5,0,360",
    "P": "0,0 0,7 2.4,7 @2.4,5.1,2,1.9,90,-90 0,3.2",
    "Q": "@2.8,3.5,2.8,3.5,0,360;3.4,1.6 5.4,-0.6",
    "R": "0,0 0,7 2.4,7 @2.4,5.1,2,1.9,90,-90 0,3.2;2.2,3.2 4.6,0",
    "S": "@2.2,5.2,1.9,1.8,40,270 @2.2,1.7,2.1,1.7,90,-145",
    "T": "0,7 5,7;2.5,7 2.5,0",
    "U": "0,7 0,2.4 @2.4,2.4,2.4,2.4,180,360 4.8,7",
    "V": "0,7 2.5,0 5,7",
    "W": "0,7 1.8,0 3.6,6.6 5.4,0 7.2,7",
    "X": "0,0 5,7;0,7 5,0",
    "Y": "0,7 2.5,3.4 5,7;2.5,3.4 2.5,0",
    "Z": "0,7 4.6,7 0,0 4.6,0",
    "a": f"3.8,5 3.8,0;{_CIRCLE}",
    "b": f"0,7.4 0,0;{_CIRCLE}",
    "c": "@1.9,2.5,1.9,2.5,45,315",
    "d": f"3.8,7.4 3.8,0;{_CIRCLE}",
    "e": "0.1,2.7 3.8,2.7 @1.9,2.5,1.9,2.5,5,312",
    "f": "@2,5.9,1.1,1.5,60,180 0.9,0;0,5 2.3,5",
    "g": f"{_CIRCLE};3.8,5 3.8,-0.3 @1.9,-0.3,1.9,1.9,0,-140",
    "h": "0,7.4 0,0;0,3.1 @1.9,3.1,1.9,1.9,180,0 3.8,0",
    "i": "0,5 0,0;0,6.9 0,7",
    "j": "1,5 1,-0.6 @0,-0.6,1,1.3,0,-90;1,6.9 1,7",
    "k": "0,7.4 0,0;3.4,5 0,1.8;1.3,3.1 3.6,0",
    "l": "0,7.4 0,1.1 @1,1.1,1,1.1,180,270",
    "m": "0,5 0,0;0,3.3 @1.6,3.3,1.6,1.7,180,0 3.2,0;3.2,3.3 @4.8,3.3,1.6,1.7,180,0 6.4,0",
    "n": "0,5 0,0;0,3.1 @1.9,3.1,1.9,1.9,180,0 3.8,0",
    "o": _CIRCLE,
    "p": f"0,5 0,-2;{_CIRCLE}",
    "q": f"3.8,5 3.8,-2;{_CIRCLE}",
    "r": "0,5 0,0;0,3.2 @1.7,3.2,1.7,1.8,180,70",
    "s": "@1.6,3.75,1.4,1.25,40,270 @1.6,1.25,1.55,1.25,90,-140",
    "t": "1,6.6 1,1.2 @2,1.2,1,1.2,180,290;0,5 2.4,5",
    "u": "0,5 0,1.9 @1.9,1.9,1.9,1.9,180,360;3.8,5 3.8,0",
    "v": "0,5 1.9,0 3.8,5",
    "w": "0,5 1.4,0 2.8,4.8 4.2,0 5.6,5",
    "x": "0,0 3.6,5;0,5 3.6,0",
    "y": "0,5 1.9,0;3.8,5 1.2,-2",
    "z": "0,5 3.4,5 0,0 3.4,0",
    "0": "@2.2,3.5,2.2,3.5,0,360",
    "1": "0.5,5.5 2.2,7 2.2,0",
    "2": "@2.1,4.95,2,2.05,165,-32 0,0 4.2,0",
    "3": "@2,5.3,1.8,1.7,150,-90;2,3.6 @2,1.8,2.15,1.8,90,-150",
    "4": "3.2,0 3.2,7 0,2 4.4,2",
    "5": "3.9,7 0.7,7 0.4,3.8 @2.1,2.2,2.1,2.2,128,-140",
    "6": "@2.1,2.15,2.1,2.15,0,360;3.5,7 @4.2,2.15,4.2,4.85,115,180",
    "7": "0,7 4.2,7 1.4,0",
    "8": "@2.1,5.3,1.75,1.7,0,360;@2.1,1.8,2.1,1.8,0,360",
    "9": "@2.1,4.85,2.1,2.15,0,360;0.7,0 @0,4.85,4.2,4.85,-65,0",
    ".": "0,0 0,0.1",
    ",": "0.3,0.3 0,-1.2",
    ":": "0,0.3 0,0.4;0,4 0,4.1",
    ";": "0.3,0.3 0,-1.2;0.3,4 0.3,4.1",
    "-": "0,2.8 2.4,2.8",
    "+": "0,3 4,3;2,1 2,5",
    "/": "0,-1 2.8,7.5",
    "%": "@1.2,5.6,1.2,1.4,0,360;@4.6,1.4,1.2,1.4,0,360;4.8,7 1,0",
    "(": "@2.4,3.2,2.4,5,122,238",
    ")": "@-1,3.2,2.4,5,58,-58",
    "=": "0,2 4,2;0,4 4,4",
    "<": "3.6,5.4 0,3 3.6,0.6",
    ">": "0,5.4 3.6,3 0,0.6",
    "_": "0,-1 4.4,-1",
    "'": "0,7 0,5.2",
    '"': "0,7 0,5.2;1.5,7 1.5,5.2",
    "#": "1.4,0 2.2,7;3.4,0 4.2,7;0,2.2 5,2.2;0.4,4.8 5.4,4.8",
    "×": "0,1.2 3.4,4.8;0,4.8 3.4,1.2",
    "·": "0,2.9 0,3",
    "°": "@1,6,1,1,0,360",
    "→": "0,2.8 5.4,2.8;3.6,4.6 5.4,2.8 3.6,1",
    "±": "0,3.8 4,3.8;2,1.8 2,5.8;0,0 4,0",
    "|": "0,-1 0,7.4",
    "&": "5,0 1,5 @2.1,5.6,1.2,1.4,200,-30 0.7,2.8 @1.8,1.6,1.8,1.6,140,330 4.8,3.2",
    "*": "1.6,4 1.6,7;0.2,4.7 3,6.3;0.2,6.3 3,4.7",
    "!": "0,7 0,2;0,0 0,0.1",
    "[": "1.6,7.4 0,7.4 0,-1 1.6,-1",
    "]": "0,7.4 1.6,7.4 1.6,-1 0,-1",
    "?": "@1.8,5.2,1.8,1.8,170,-60 1.8,2.2;1.8,0 1.8,0.1",
    "–": "0,2.8 3.6,2.8",
    "~": "0,2.4 1.2,3.4 2.8,2.4 4,3.4",
    "@": "@3,2.8,1.3,1.6,0,360;4.3,4.4 4.3,2 @5,2,0.7,0.7,180,360 @3,2.8,3,3.4,0,300",
    "³": "@1,6.6,0.9,0.8,150,-90;1,5.8 @1,4.9,1,0.9,90,-150",
}
CAP_HEIGHT, DESCENT, GAP, SPACE = 7.0, 2.4, 2.0, 2.6
# Digits share one width, so that figures in columns line up.
_DIGIT_WIDTH = 4.3


@cache
def _strokes(character: str) -> tuple[tuple[np.ndarray, ...], float]:
    """Polylines (K, 2) of a character in font units and its width; unknown characters become a box."""
    lines = []
    for stroke in _GLYPHS.get(character, "0,0 0,7 4,7 4,0 0,0").split(";"):
        points: list[tuple[float, float]] = []
        for token in stroke.split():
            numbers = [float(n) for n in token.lstrip("@").split(",")]
            if token.startswith("@"):
                cx, cy, rx, ry, first, last = numbers
                steps = max(4, int(abs(last - first) / 9))
                angles = [pi / 180 * (first + (last - first) * i / steps) for i in range(steps + 1)]
                points += [(cx + rx * cos(a), cy + ry * sin(a)) for a in angles]
            else:
                points.append((numbers[0], numbers[1]))
        lines.append(np.asarray(points))
    width = max(float(line[:, 0].max()) for line in lines)
    return tuple(lines), _DIGIT_WIDTH if character.isdigit() else width


def text_width(text: str, height: float) -> float:
    """Pixels that ``text`` takes at a capital height of ``height`` pixels."""
    advance = sum(SPACE + GAP / 2 if c == " " else _strokes(c)[1] + GAP for c in text)
    return max(0.0, advance - GAP) * height / CAP_HEIGHT


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
    if align != "left":
        x -= text_width(text, height) * (0.5 if align == "center" else 1.0)
    if halo:
        _draw(picture, x, baseline, text, height, (0, 0, 0), bold, 1.6)
    return _draw(picture, x, baseline, text, height, color, bold, 0.0)


def _draw(
    picture: np.ndarray,
    x: float,
    baseline: float,
    text: str,
    height: float,
    color: tuple[int, int, int],
    bold: bool,
    extra: float,
) -> float:
    for character in text:
        if character == " ":
            x += (SPACE + GAP / 2) * height / CAP_HEIGHT
            continue
        column, row = int(np.floor(x)), int(np.floor(baseline))
        # Quarter pixels: finer placement is invisible and would defeat the cache.
        cover, left, top = _coverage(
            character, height, bold, extra, round((x - column) * 4) / 4, round((baseline - row) * 4) / 4
        )
        _blend(picture, row + top, column + left, cover, color)
        x += (_strokes(character)[1] + GAP) * height / CAP_HEIGHT
    return x - GAP * height / CAP_HEIGHT


@lru_cache(maxsize=4096)
def _coverage(
    character: str, height: float, bold: bool, extra: float, dx: float, dy: float
) -> tuple[np.ndarray, int, int]:
    """Antialiased mask of a character and where its corner lies relative to the pen, pixels."""
    scale = height / CAP_HEIGHT
    radius = max(0.62, (0.62 if bold else 0.43) * scale) + extra
    lines, width = _strokes(character)
    margin = ceil(radius + 1)
    left = int(np.floor(min(line[:, 0].min() for line in lines) * scale)) - margin
    right = ceil(width * scale) + margin + 1
    top, bottom = -ceil(8 * scale) - margin, ceil(DESCENT * scale) + margin + 1
    rows, columns = np.mgrid[top:bottom, left:right].astype(float)
    rows, columns = rows + 0.5 - dy, columns + 0.5 - dx
    distance = np.full(rows.shape, np.inf)
    for line in lines:
        px, py = line[:, 0] * scale, -line[:, 1] * scale
        for ax, ay, bx, by in zip(px[:-1], py[:-1], px[1:], py[1:], strict=True):
            ux, uy = bx - ax, by - ay
            t = np.clip(((columns - ax) * ux + (rows - ay) * uy) / max(ux * ux + uy * uy, 1e-9), 0, 1)
            np.minimum(distance, np.hypot(columns - ax - t * ux, rows - ay - t * uy), out=distance)
    return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32), left, top


def _blend(picture: np.ndarray, row: int, column: int, cover: np.ndarray, color: tuple[int, int, int]) -> None:
    r0, c0 = max(row, 0), max(column, 0)
    r1, c1 = min(row + cover.shape[0], picture.shape[0]), min(column + cover.shape[1], picture.shape[1])
    if r0 >= r1 or c0 >= c1:
        return
    alpha = cover[r0 - row : r1 - row, c0 - column : c1 - column, None]
    part = picture[r0:r1, c0:c1]
    part += alpha * (np.asarray(color, dtype=picture.dtype) - part)
