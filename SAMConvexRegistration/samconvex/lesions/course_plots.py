"""Waterfall and spider plot of a course, drawn by Pillow on white."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..report.lettering import draw_text, fit_text, text_width
from .assessment import assess_course, changes_of, shown_mm
from .course import Course, CourseLesion
from .response import PARTIAL_PERCENT, PROGRESS_PERCENT

INK, MUTED, RULE = (28, 32, 40), (105, 112, 124), (214, 218, 224)
GROWTH, DECREASE, LITTLE = (200, 60, 50), (40, 140, 80), (110, 130, 160)
PALETTE = (
    (31, 119, 180),
    (214, 96, 20),
    (44, 140, 70),
    (148, 80, 180),
    (140, 86, 75),
    (200, 60, 130),
    (90, 100, 110),
    (160, 150, 20),
    (20, 150, 170),
)
SUM = "sum of targets"
_FINER = 3
_TITLE = 11.0
_LETTERS = 9.0


def waterfall(course: Course, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float: change of every lesion's diameter at its last visit against its first, in percent.

    Diameters are the confirmed ones, else the suggested ones. Dashes mark +20 % and -30 %.
    """
    changes = []
    for lesion in course.lesions:
        known = [change for change, _ in changes_of(course, lesion) if change is not None]
        if known:
            changes.append((lesion.name, known[-1]))
    changes.sort(key=lambda entry: -entry[1])
    values = [value for _, value in changes]
    frame = _Frame(width, height, (0.0, max(len(changes), 1)), _limits(values))
    for row, (_, value) in enumerate(changes):
        color = GROWTH if value >= PROGRESS_PERCENT else DECREASE if value <= PARTIAL_PERCENT else LITTLE
        frame.bar(row + 0.15, row + 0.85, min(value, frame.vertical[1]), color)
    frame.levels()
    page = frame.painted()
    room = frame.across(1.0) - frame.across(0.0)
    for row, (name, value) in enumerate(changes):
        middle = frame.across(row + 0.5)
        draw_text(page, middle, height - 12, fit_text(name, _LETTERS, room - 4), _LETTERS, INK, align="center")
        top = frame.up(min(max(value, 0.0), frame.vertical[1])) - 5
        draw_text(page, middle, top, f"{value:+.0f} %", _LETTERS, INK, align="center")
    frame.letters(page, "Change of each lesion since its first visit, %")
    return page


def spider(course: Course, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float: change of every lesion's diameter, and of the sum of targets, over time in percent."""
    times, unit = _times(course)
    lines: list[tuple[str, list[float | None], tuple[int, int, int], int]] = []
    for row, lesion in enumerate(course.lesions):
        lines.append((lesion.name, _from_zero(course, lesion), PALETTE[row % len(PALETTE)], 2))
    assessed = assess_course(course).visits
    if assessed and any(entry.recist.change_since_baseline_percent is not None for entry in assessed):
        by_visit = {entry.visit: entry.recist.change_since_baseline_percent for entry in assessed}
        sums = [by_visit.get(visit.name) for visit in course.visits]
        sums[0] = 0.0
        lines.append((SUM, sums, INK, 4))
    known = [value for _, values, _, _ in lines for value in values if value is not None]
    room = max([text_width(name[:22], _LETTERS) for name, *_ in lines], default=0.0) + 24
    frame = _Frame(width, height, (0.0, max([*times, 1.0])), _limits(known), right=int(room))
    frame.levels()
    ends = []
    for name, values, color, thickness in lines:
        points = [(t, min(v, frame.vertical[1])) for t, v in zip(times, values, strict=True) if v is not None]
        frame.line(points, color, thickness)
        if points:
            ends.append([frame.up(points[-1][1]), name, color])
    page = frame.painted()
    for at, name, color in _apart(ends, 15.0):
        draw_text(page, width - room + 12, at + 4, fit_text(name, _LETTERS, room - 16), _LETTERS, color)
    for time in sorted(set(times)):
        draw_text(page, frame.across(time), height - 12, f"{time:g}", _LETTERS, MUTED, align="center")
    frame.letters(page, f"Change of diameters, % ({unit})")
    return page


def _from_zero(course: Course, lesion: CourseLesion) -> list[float | None]:
    """Per visit the change in percent, 0 at the first that has a diameter."""
    changes: list[float | None] = [change for change, _ in changes_of(course, lesion)]
    values = [shown_mm(lesion, lesion.readings.get(visit.name)) for visit in course.visits]
    first = next((row for row, value in enumerate(values) if value), None)
    if first is not None:
        changes[first] = 0.0
    return changes


def _times(course: Course) -> tuple[list[float], str]:
    """Days since the first visit where all dates are known, else the visits' numbers."""
    dates = [datetime.date.fromisoformat(visit.date) for visit in course.visits if visit.date]
    if len(dates) == len(course.visits) and dates:
        return [float((date - dates[0]).days) for date in dates], "days since the first visit"
    return [float(number) for number in range(len(course.visits))], "visits, the first is 0"


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Percent at the bottom and at the top; what grew beyond 150 % ends there."""
    low = min([PARTIAL_PERCENT - 10, *values]) - 8
    high = max([PROGRESS_PERCENT + 10, *values]) * 1.12 + 8
    return max(low, -112.0), min(high, 160.0)


def _apart(ends: list, least: float) -> list:
    """Labels (place, ...) pushed down until they are ``least`` pixels apart."""
    placed: list = []
    for entry in sorted(ends, key=lambda end: end[0]):
        at = entry[0] if not placed else max(entry[0], placed[-1][0] + least)
        placed.append([at, *entry[1:]])
    return placed


class _Frame:
    """Axes and what is drawn between them, in the units of the data."""

    def __init__(
        self,
        width: int,
        height: int,
        horizontal: tuple[float, float],
        vertical: tuple[float, float],
        right: int = 16,
    ) -> None:
        self.size, self.horizontal, self.vertical = (width, height), horizontal, vertical
        self._box = (58.0, 40.0, float(width - right), float(height - 36))
        self._image = Image.new("RGB", (width * _FINER, height * _FINER), (255, 255, 255))
        self._pen = ImageDraw.Draw(self._image)

    def across(self, value: float) -> float:
        low, high = self.horizontal
        return self._box[0] + (value - low) / (high - low) * (self._box[2] - self._box[0])

    def up(self, value: float) -> float:
        low, high = self.vertical
        return self._box[3] - (value - low) / (high - low) * (self._box[3] - self._box[1])

    def bar(self, first: float, last: float, value: float, color: tuple[int, int, int]) -> None:
        top, bottom = sorted((self.up(value), self.up(0.0)))
        box = (self.across(first), top, self.across(last), max(bottom, top + 1))
        self._pen.rectangle([edge * _FINER for edge in box], fill=color)

    def line(self, points: list[tuple[float, float]], color: tuple[int, int, int], thickness: int) -> None:
        places = [(self.across(x) * _FINER, self.up(y) * _FINER) for x, y in points]
        if len(places) > 1:
            self._pen.line(places, fill=color, width=thickness * _FINER, joint="curve")
        radius = (thickness + 2) * _FINER
        for x, y in places:
            self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def levels(self) -> None:
        """The line at 0, dashes where response and progression begin."""
        left, _, right, _ = (edge * _FINER for edge in self._box)
        for value, color in ((0.0, MUTED), (PROGRESS_PERCENT, GROWTH), (PARTIAL_PERCENT, DECREASE)):
            y = self.up(value) * _FINER
            if value == 0:
                self._pen.line((left, y, right, y), fill=color, width=_FINER)
                continue
            for x in np.arange(left, right, 14.0 * _FINER):
                self._pen.line((x, y, min(x + 7 * _FINER, right), y), fill=color, width=_FINER)

    def painted(self) -> np.ndarray:
        """(height, width, 3) float."""
        return np.asarray(self._image.resize(self.size, Image.Resampling.BOX), dtype=np.float32).copy()

    def letters(self, page: np.ndarray, title: str) -> None:
        draw_text(page, 4, 18, title, _TITLE, INK, bold=True)
        for value in (PROGRESS_PERCENT, 0.0, PARTIAL_PERCENT, -100.0, 100.0):
            if self.vertical[0] < value < self.vertical[1]:
                draw_text(page, self._box[0] - 8, self.up(value) + 4, f"{value:+.0f}", _LETTERS, MUTED, align="right")
