"""Progress for people (a bar), for programs (one JSON object per line) or for nobody."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from ..memory import current_memory_mib
from ..report.verdict import CHECK, DO_NOT_USE, GOOD, sentence
from .cancellation import raise_if

KINDS = ("bar", "json", "none")
_REDRAW_S = 0.1
_REPORT_S = 0.5
# Terminal colors: green, yellow, red.
_VERDICT_COLORS = {GOOD: "32", CHECK: "33", DO_NOT_USE: "31"}


def say_notes(notes: Iterable[str]) -> None:
    """Print what reading had to decide, each sentence once, to stderr."""
    for note in dict.fromkeys(notes):
        print(f"Warning: {note}", file=sys.stderr)


def loud_verdict(judged: Mapping[str, Any]) -> str:
    """The verdict as the line that is read last: bold and colored where stdout is a terminal."""
    text = sentence(judged)
    color = _VERDICT_COLORS.get(str(judged["level"]), "33")
    return f"\x1b[1;{color}m{text}\x1b[0m" if sys.stdout.isatty() else text


class ConsoleProgress:
    """A progress callable that shows what it is told and raises Cancelled once ``cancelled`` is set.

    Args:
        kind: "bar" (on stderr where that is a terminal), "json" (one object per line on stdout) or "none".
        plan: stages in order with their expected share of the time; their sum need not be 1.
    """

    def __init__(
        self,
        kind: str,
        plan: Sequence[tuple[str, float]],
        cancelled: threading.Event | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._kind = kind
        self._plan = list(plan)
        self._cancelled = cancelled or threading.Event()
        self._stream = stream or (sys.stdout if kind == "json" else sys.stderr)
        # A bar in a log file is noise, and an error there must stay one sentence.
        self._interactive = kind == "bar" and self._stream.isatty()
        self._silent = kind == "none" or (kind == "bar" and not self._interactive)
        self._start = time.monotonic()
        self._overall = 0.0
        self._last_shown = -1e9
        self._last_stage: str | None = None
        self._last_message = ""

    def __call__(self, stage: str, fraction: float, message: str = "") -> None:
        raise_if(self._cancelled)
        if stage == "done":
            # Said by the engine; for the user the results are still to be written (see finish).
            return
        fraction = min(max(float(fraction), 0.0), 1.0)
        # Never backwards: a stage that reports twice must not make the bar jump.
        self._overall = max(self._overall, self._overall_share(stage, fraction))
        if self._silent:
            return
        now = time.monotonic()
        news = stage != self._last_stage or (message and message != self._last_message)
        pause = _REDRAW_S if self._interactive else _REPORT_S
        if news or fraction >= 1.0 or now - self._last_shown >= pause:
            self._show(stage, fraction, message, now)
            self._last_shown, self._last_stage = now, stage
            self._last_message = message or self._last_message

    def finish(self, message: str = "") -> None:
        """The last report: 100 percent in json, an empty line in place of the bar."""
        self._overall = 1.0
        if self._kind == "json":
            self._show("done", 1.0, message, time.monotonic())
        self.clear()

    def clear(self) -> None:
        """Remove the bar, so that other text can be printed."""
        if self._interactive:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _overall_share(self, stage: str, fraction: float) -> float:
        total = sum(share for _, share in self._plan) or 1.0
        before = 0.0
        for name, share in self._plan:
            if name == stage:
                return (before + share * fraction) / total
            before += share
        return self._overall

    def _seconds_left(self, now: float) -> float | None:
        elapsed = now - self._start
        # The first percents are reading and planning: an extrapolation from them misleads.
        if self._overall >= 1.0:
            return 0.0
        return elapsed / self._overall * (1 - self._overall) if self._overall > 0.05 and elapsed > 1.0 else None

    def _show(self, stage: str, fraction: float, message: str, now: float) -> None:
        left = self._seconds_left(now)
        if self._kind == "json":
            line = {
                "stage": stage,
                "fraction": round(fraction, 4),
                "percent": round(100 * self._overall, 1),
                "seconds_left": None if left is None else round(left, 1),
                "memory_mib": round(current_memory_mib(), 1),
                "message": message,
            }
            self._stream.write(json.dumps(line) + "\n")
        else:
            self._stream.write("\r" + self._bar(stage, left, message) + "\x1b[K")
        self._stream.flush()

    def _bar(self, stage: str, left: float | None, message: str) -> str:
        columns = shutil.get_terminal_size((80, 24)).columns
        done = int(24 * self._overall)
        text = f"[{'#' * done}{'.' * (24 - done)}] {100 * self._overall:3.0f} %  {stage}"
        if left is not None:
            text += f", {_duration(left)} left"
        if message:
            text += f" - {message}"
        return text[: columns - 1]


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60}:{whole % 60:02d} min"
