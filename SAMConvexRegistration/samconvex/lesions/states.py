"""Grown, shrunk or unchanged: two sizes of a lesion compared beyond their expected errors.

The change is the mean of the logarithms of two lengths: the longest diameter, which RECIST 1.1 follows, and the
diameter of the ball of the lesion's volume, which does not hang on a single line. A lesion has grown or shrunk where it
changed by more than LIMIT_PERCENT and by more than the expected error of the change (``precision.py``; one standard
deviation, the errors of both visits in squares). RECIST's 20 % are a rule for the sum of the targets, not for a lesion.
"""

from __future__ import annotations

import math

from .course import GROWN, SHRUNK, UNCHANGED
from .measurement import Measurement
from .precision import ExpectedError

LIMIT_PERCENT = 12.0


def size_state(before: Measurement, before_error: ExpectedError, after: Measurement, after_error: ExpectedError) -> str:
    """What became of a lesion from its sizes at two visits and their expected errors."""
    change, error = size_change(before, before_error, after, after_error)
    limit = max(math.log1p(LIMIT_PERCENT / 100), error)
    return GROWN if change > limit else SHRUNK if change < -limit else UNCHANGED


def size_change(
    before: Measurement, before_error: ExpectedError, after: Measurement, after_error: ExpectedError
) -> tuple[float, float]:
    """Logarithm of the factor on a lesion's length, and its expected error (one standard deviation)."""
    change = 0.0
    squares = 0.0
    for measured, error, sign in ((before, before_error, -1), (after, after_error, 1)):
        change += sign * (math.log(max(measured.longest_mm, 0.1)) + math.log(max(measured.volume_ml, 1e-6)) / 3) / 2
        longest = error.longest_mm / max(measured.longest_mm, 0.1)
        volume = error.volume_ml / max(measured.volume_ml, 1e-6) / 3
        # Both hang on the same border.
        squares += ((longest + volume) / 2) ** 2
    return change, math.sqrt(squares)
