"""Photographs of the window and its parts, for documentation and for looking at during development."""

from __future__ import annotations

import os

import numpy as np
import slicer
from PySide6 import QtCore, QtGui, QtWidgets


def settle(seconds: float = 0.0) -> None:
    """Let everything that was scheduled happen: layouts, logics, renderings."""
    from .waiting import wait_until

    deadline = QtCore.QDeadlineTimer(int(1000 * seconds))
    for _ in range(3):
        slicer.app.processEvents()
    wait_until(deadline.hasExpired, seconds + 10)


def activate(window) -> None:
    """Make a window the active one, the only one that draws the keyboard focus.

    The offscreen platform sends no activation after a dialog was closed or the window was hidden.
    """
    window.show()
    QtWidgets.QApplication.setActiveWindow(window)
    settle()


def photograph(widget, path, scale: float = 1.0) -> None:
    """Save a widget as it is painted now as PNG; ``scale`` below 1 shrinks it smoothly."""
    settle()
    picture = widget.grab()
    # Slice nodes learn the size of their view from the first painting.
    settle()
    picture = widget.grab()
    if scale != 1.0:
        picture = picture.scaledToWidth(int(picture.width() * scale), QtCore.Qt.TransformationMode.SmoothTransformation)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if not picture.save(str(path), "PNG"):
        raise OSError(f"cannot write {path}")


def pixels(widget) -> np.ndarray:
    """A widget as it is painted now: (height, width, 3) uint8."""
    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def to_view(view, ras) -> tuple[float, float]:
    """Where a world position lies in a slice view's :meth:`pixels`: (column, row)."""
    x, y, _ = view.convertRASToXYZ(ras)
    return x, view.pixels().shape[0] - 1 - y


def colored(picture, color, tolerance=40) -> np.ndarray:
    """Mask of the pixels of a picture that have about this color, 0..255 each."""
    return np.abs(picture.astype(int) - np.asarray(color)).max(-1) <= tolerance
