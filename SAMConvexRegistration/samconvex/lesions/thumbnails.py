"""Small pictures of a lesion at a visit: the axial slice of its longest diameter, its contour and its diameters."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..space.sampling import sample
from ..space.volume import Volume
from .patches import crop

LONGEST_COLOR, SHORT_COLOR, CONTOUR_COLOR = (255, 214, 70), (70, 200, 255), (120, 230, 120)
# Window (low, high) in HU: soft tissue, and lung where most of the surroundings are air.
SOFT_WINDOW, LUNG_WINDOW = (-160.0, 240.0), (-1350.0, 150.0)
_LUNG_HU = -500.0
# Pixels are drawn this much finer, then averaged: lines without steps.
_FINER = 3
# Of lines, in fine pixels: wide enough to fill at least one of the picture's.
_STROKE = 5


def thumbnail(
    image: Volume,
    center: np.ndarray,
    width_mm: float,
    pixels: int,
    *,
    contour: Volume | None = None,
    longest: np.ndarray | None = None,
    short: np.ndarray | None = None,
) -> np.ndarray:
    """(pixels, pixels, 3) uint8, the patient's right on the left.

    Args:
        center: (3,) LPS mm in the middle. width_mm: of the square shown.
        contour: mask on any grid, outlined. longest, short: (2, 3) end points of diameters, LPS mm.
    """
    count = pixels * _FINER
    step = width_mm / count
    offsets = (torch.arange(count, dtype=torch.float32) - (count - 1) / 2) * step
    points = torch.zeros(1, count, count, 3)
    points[..., 0], points[..., 1] = offsets[None, None, :], offsets[None, :, None]
    gray = _gray(image, center, width_mm, points)
    picture = np.repeat(gray[..., None], 3, 2)
    if contour is not None:
        outline = _outline(contour, center, width_mm, points)
        picture[outline] = CONTOUR_COLOR
    canvas = Image.fromarray(np.clip(np.round(picture), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for line, color in ((short, SHORT_COLOR), (longest, LONGEST_COLOR)):
        if line is not None:
            ends = (np.asarray(line)[:, :2] - center[:2]) / step + (count - 1) / 2
            pen.line([tuple(end) for end in ends.tolist()], fill=color, width=_STROKE)
    return np.asarray(canvas.resize((pixels, pixels), Image.Resampling.BOX))


def _gray(image: Volume, center: np.ndarray, width_mm: float, points: torch.Tensor) -> np.ndarray:
    """(H, W) gray values 0 to 255; black beyond the image."""
    part = crop(image, center, 0.75 * width_mm)
    if part is None:
        return np.zeros(points.shape[1:3], np.float32)
    values = sample(part.as_float(), part.grid, points, reference=center, fill=float("nan"))[0, 0, 0].numpy()
    known = values[np.isfinite(values)]
    if image.modality == "ct":
        low, high = LUNG_WINDOW if len(known) and float(np.median(known)) < _LUNG_HU else SOFT_WINDOW
    else:
        low, high = np.percentile(known, [1, 99]) if len(known) else (0.0, 1.0)
    return np.nan_to_num((values - low) / max(float(high - low), 1e-6) * 255, nan=0.0).clip(0, 255)


def _outline(contour: Volume, center: np.ndarray, width_mm: float, points: torch.Tensor) -> np.ndarray:
    """(H, W) bool: the border of the mask in the slice."""
    part = crop(contour, center, 0.75 * width_mm)
    if part is None:
        return np.zeros(points.shape[1:3], bool)
    inside = sample(part.as_float(), part.grid, points, reference=center, fill=0.0)[0, 0, 0].numpy() > 0.5
    grown = inside.copy()
    for axis in (0, 1):
        for shift in range(-_STROKE, _STROKE + 1):
            grown |= np.roll(inside, shift, axis)
    return grown & ~inside
