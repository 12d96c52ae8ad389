"""Exceptions in Qt slots and VTK observers: both only print them, a test must see them."""

from __future__ import annotations

import contextlib
import sys
import traceback


@contextlib.contextmanager
def slot_errors():
    """A list that fills with the traceback texts of exceptions nobody caught."""
    errors: list[str] = []
    previous = sys.excepthook
    sys.excepthook = lambda *error: errors.append("".join(traceback.format_exception(*error)))
    try:
        yield errors
    finally:
        sys.excepthook = previous
