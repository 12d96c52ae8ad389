"""How long the user interface stands still: the longest time between two turns of the event loop."""

from __future__ import annotations

import time

from PySide6 import QtCore


class StallWatch:
    """Measures while it is entered::

    with StallWatch() as watch:
        wait_until(lambda: widget.state == "idle")
    assert watch.worst < 0.2
    """

    INTERVAL_MS = 5

    def __init__(self):
        self.worst = 0.0  # seconds beyond the interval
        self.turns = 0
        self._timer = QtCore.QTimer()
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.setTimerType(QtCore.Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._turn)
        self._last = None

    def __enter__(self):
        self._last = time.perf_counter()
        self._timer.start()
        return self

    def __exit__(self, *error):
        self._turn()
        self._timer.stop()

    def _turn(self):
        now = time.perf_counter()
        self.worst = max(self.worst, now - self._last - self.INTERVAL_MS / 1000)
        self._last = now
        self.turns += 1
