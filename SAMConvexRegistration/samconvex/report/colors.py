"""The colors of the expected error, the same on paper and on screen; without torch, for Slicer's own process."""

from __future__ import annotations

import numpy as np

# Where the map folds.
FOLDED = (255, 0, 220)
ERROR_STOPS_MM = (1.0, 2.0, 5.0, 10.0, 20.0)
_ERROR_COLORS = ((38, 150, 92), (140, 200, 80), (250, 205, 70), (232, 80, 50), (150, 30, 120))


def error_color(bound_mm: np.ndarray) -> np.ndarray:
    """Green up to 1 mm over yellow at 5 mm to red at 10 mm and purple from 20 mm on, by the logarithm.

    (...,) to (..., 3) in 0..255.
    """
    position = np.log(np.maximum(bound_mm, 1e-3))
    stops = np.log(ERROR_STOPS_MM)
    return np.stack([np.interp(position, stops, channel) for channel in zip(*_ERROR_COLORS, strict=True)], -1)
