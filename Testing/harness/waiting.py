"""Waiting in tests: for a condition with a deadline, never for a fixed time."""

from __future__ import annotations

import time

from PySide6 import QtCore


def wait_until(condition, seconds: float = 10.0, message: str = "the condition did not come true") -> None:
    """Run the event loop until ``condition()`` is true; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{message} within {seconds} s")
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 20)
        time.sleep(0.002)
