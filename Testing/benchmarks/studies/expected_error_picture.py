"""The reliability diagram: what the bound says against what nine of ten errors really are below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE, LEFT, BOTTOM, TOP, RIGHT = 760, 84, 70, 54, 330
TICKS_MM = (0.5, 1, 2, 5, 10, 20, 50, 100)
COLORS = ((42, 110, 187), (214, 96, 40), (60, 150, 90), (140, 80, 170), (190, 150, 20), (90, 90, 90), (200, 60, 110))
# Fewer places than this in a class tell little of a ninetieth percentile.
CLASSES, FEWEST = 8, 20
# Of one pair, or of many: (bounds, errors), mm.
Pairs = list[tuple[np.ndarray, np.ndarray]]


def curve(pairs: Pairs) -> np.ndarray:
    """(C, 2) mm: the mean bound of a class of places of like bound, and the 90th percentile of its errors."""
    bounds, errors = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    classes = np.array_split(np.argsort(bounds), max(1, min(CLASSES, len(bounds) // FEWEST)))
    return np.array([[bounds[rows].mean(), np.percentile(errors[rows], 90)] for rows in classes])


def draw(groups: dict[str, Pairs], target: Path) -> None:
    """Write the diagram of some groups of pairs as a picture."""
    low, high = np.log(TICKS_MM[0]), np.log(TICKS_MM[-1])
    page = Image.new("RGB", (SIZE + RIGHT, SIZE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = ((np.log(max(v, TICKS_MM[0])) - low) / (high - low) for v in (x, y))
        return LEFT + across * (SIZE - LEFT - 20), SIZE - BOTTOM - up * (SIZE - BOTTOM - TOP)

    for tick in TICKS_MM:
        pen.line([place(tick, TICKS_MM[0]), place(tick, TICKS_MM[-1])], fill=(228, 228, 228))
        pen.line([place(TICKS_MM[0], tick), place(TICKS_MM[-1], tick)], fill=(228, 228, 228))
        x, y = place(tick, TICKS_MM[0])
        pen.text((x, y + 8), f"{tick:g}", fill="black", font=font, anchor="mt")
        x, y = place(TICKS_MM[0], tick)
        pen.text((x - 8, y), f"{tick:g}", fill="black", font=font, anchor="rm")
    pen.line([place(TICKS_MM[0], TICKS_MM[0]), place(TICKS_MM[-1], TICKS_MM[-1])], fill=(120, 120, 120), width=2)
    pen.text((SIZE / 2, SIZE - 18), "expected error (bound), mm", fill="black", font=font, anchor="mm")
    pen.text(
        (LEFT, 24),
        "90th percentile of the true errors, mm; on the line: as said, below: better",
        fill="black",
        font=font,
        anchor="lm",
    )
    for number, (name, pairs) in enumerate(groups.items()):
        color = COLORS[number % len(COLORS)]
        points = [place(x, y) for x, y in curve(pairs)]
        pen.line(points, fill=color, width=3)
        for x, y in points:
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=color)
        y = TOP + 24 + 46 * number
        pen.rectangle([SIZE + 4, y - 8, SIZE + 20, y + 8], fill=color)
        places = sum(len(errors) for _, errors in pairs)
        pen.text((SIZE + 28, y), name, fill="black", font=font, anchor="lm")
        pen.text(
            (SIZE + 28, y + 19), f"{len(pairs)} pairs, {places} places", fill=(110, 110, 110), font=font, anchor="lm"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    page.save(target)
