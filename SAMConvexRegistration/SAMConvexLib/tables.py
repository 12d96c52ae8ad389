"""Figures as texts, rows as table nodes."""

import numpy as np


def formatted(value):
    """A figure with as many digits as are worth reading."""
    if value == "" or not isinstance(value, int | float):
        return str(value)
    if not np.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
