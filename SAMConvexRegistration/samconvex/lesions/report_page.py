"""The course on one page, as PNG and PDF: who, when, every lesion at every visit, sums, categories and their rules.

Drawn by Pillow on white, A4 upright, for a screen and for paper. Support for a reading, not a diagnosis: what no person
confirmed is written in another color and called suggested.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError, ResourceError
from ..io.files import replaced
from ..io.images import read_volume
from ..report.lettering import draw_text, fit_text
from ..space.volume import Volume
from ..version import __version__
from .assessment import Assessment, assess_course, changes_of, diameters_of
from .course import BASELINE, Course, CourseLesion, Reading, Visit
from .course_plots import INK, MUTED, RULE, spider, waterfall
from .recording import reading_contour
from .response import CATEGORIES, NOTICE
from .thumbnails import CONTOUR_COLOR, LONGEST_COLOR, SHORT_COLOR, thumbnail

# A4 at 200 dots per inch.
WIDTH, HEIGHT, DPI = 1654, 2339, 200
_MARGIN = 64
_LABELS = 250
_TABLE_ROW = 34
# Height of the figures beside a thumbnail, and their width.
_CAPTION, _FIGURES = 150, 132
_LARGEST_THUMB = 230
_MOST_VISITS = 6
_PLOTS = 330
SUGGESTED = (150, 90, 20)
_PD, _PR, _OTHER = (190, 50, 40), (30, 125, 70), (60, 80, 120)
_NOTE = "Support for a reading, not a diagnosis."


def write_report_page(
    course: Course,
    folder: str | os.PathLike,
    images: Mapping[str, Volume] | None = None,
    *,
    today: datetime.date | None = None,
) -> list[Path]:
    """Write ``report.png`` and ``report.pdf`` into a folder; existing ones are replaced.

    Args:
        images: by the visit's name, where they are at hand; others are read from where the course says.
        today: the date of the report.

    Raises:
        InputError: the course has no visit. ResourceError: the disk refused.
    """
    page = Image.fromarray(render_report_page(course, images, today=today))
    paths = [Path(folder) / "report.png", Path(folder) / "report.pdf"]
    for path, form in zip(paths, ("PNG", "PDF"), strict=True):
        try:
            with replaced(path) as temporary, open(temporary, "wb") as stream:
                page.save(stream, form, **({"resolution": DPI} if form == "PDF" else {"dpi": (DPI, DPI)}))
        except OSError as error:
            raise ResourceError(
                f"{path} could not be written ({error.strerror or error}); choose another place."
            ) from error
    return paths


def render_report_page(
    course: Course, images: Mapping[str, Volume] | None = None, *, today: datetime.date | None = None
) -> np.ndarray:
    """The page as (H, W, 3) uint8; arguments as :func:`write_report_page`."""
    if not course.visits:
        raise InputError("The course has no visit yet; add the baseline before writing a report.")
    page = np.full((HEIGHT, WIDTH, 3), 255.0, dtype=np.float32)
    assessed = assess_course(course)
    visits, left_out = _shown_visits(course)
    layout = _Layout.of(course, visits)
    top = _header(page, course, today or datetime.date.today())
    top = _visit_table(page, course, assessed, visits, left_out, layout, top)
    top = _matrix(page, course, visits, images or {}, layout, top)
    top = _rules(page, course, assessed, top)
    _plots(page, course)
    _footer(page)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Layout:
    """Pixels: width of a visit's column, edge of a thumbnail (0: none fits); lesions with a row of their own."""

    column: int
    thumb: int
    rows: int

    @property
    def pitch(self) -> int:
        return max(self.thumb, _CAPTION) + 14

    @classmethod
    def of(cls, course: Course, visits: list[Visit]) -> _Layout:
        column = (WIDTH - 2 * _MARGIN - _LABELS) // max(len(visits), 1)
        column = min(column, _LARGEST_THUMB + _FIGURES + 40)
        room = HEIGHT - 560 - _PLOTS - 250
        count = max(len(course.lesions), 1)
        thumb = min(_LARGEST_THUMB, column - _FIGURES, max(room // count - 14, _CAPTION))
        layout = cls(column, max(thumb, 0), count)
        return cls(column, layout.thumb, min(count, room // layout.pitch))


def _shown_visits(course: Course) -> tuple[list[Visit], int]:
    """The first and the last visits that fit, and how many between them do not."""
    surplus = len(course.visits) - _MOST_VISITS
    if surplus <= 0:
        return list(course.visits), 0
    return [course.visits[0], *course.visits[1 + surplus :]], surplus


# --- top ------------------------------------------------------------------------------------------------------------
def _header(page: np.ndarray, course: Course, today: datetime.date) -> int:
    right = WIDTH - _MARGIN
    draw_text(page, _MARGIN, 92, "Lesions through time", 25, INK, bold=True)
    draw_text(page, right, 78, _NOTE, 14, _PD, bold=True, align="right")
    draw_text(page, right, 104, f"samconvex {__version__}, printed {today.isoformat()}", 11, MUTED, align="right")
    x = draw_text(page, _MARGIN, 140, "Patient", 12, MUTED)
    name = course.patient or "not named"
    x = draw_text(page, x + 12, 140, fit_text(name, 15, 700), 15, INK, bold=True)
    if course.patient_id:
        draw_text(page, x + 30, 140, fit_text(f"ID {course.patient_id}", 12, 480), 12, MUTED)
    page[158:160, _MARGIN:right] = INK
    return 176


def _visit_table(
    page: np.ndarray,
    course: Course,
    assessed: Assessment,
    visits: list[Visit],
    left_out: int,
    layout: _Layout,
    top: int,
) -> int:
    """A column per visit: date, series, sum, changes, categories."""
    by_visit = {entry.visit: entry for entry in assessed.visits}
    titles = (
        "",
        "",
        "Sum of targets",
        "since baseline",
        "since smallest",
        "Volume of targets",
        "RECIST 1.1",
        "iRECIST",
    )
    for row, title in enumerate(titles):
        draw_text(page, _MARGIN, top + 24 + row * _TABLE_ROW, title, 11, MUTED)
    for number, visit in enumerate(visits):
        x = _MARGIN + _LABELS + number * layout.column
        room = layout.column - 14
        draw_text(page, x, top + 24, fit_text(visit.name, 13, room), 13, INK, bold=True)
        draw_text(page, x, top + 24 + _TABLE_ROW, fit_text(_when(course, visit), 10.5, room), 10.5, MUTED)
        entry = by_visit.get(visit.name)
        if entry is None:
            continue
        recist, volume = entry.recist, entry.volume_change_percent
        cells = (
            "" if recist.sum_mm is None else f"{recist.sum_mm:.1f} mm",
            _percent(recist.change_since_baseline_percent),
            _percent(recist.change_since_nadir_percent, recist.change_since_nadir_mm),
            "" if entry.volume_ml is None else f"{entry.volume_ml:.1f} ml" + (f" ({volume:+.0f} %)" if volume else ""),
        )
        for row, cell in enumerate(cells, start=2):
            draw_text(page, x, top + 24 + row * _TABLE_ROW, fit_text(cell, 12, room), 12, INK)
        for row, category in ((6, recist.category), (7, entry.immune.category)):
            color = _color(category)
            draw_text(page, x, top + 25 + row * _TABLE_ROW, fit_text(category, 14, room), 14, color, bold=True)
    bottom = top + 24 + len(titles) * _TABLE_ROW - 12
    if not assessed.visits:
        text = "No categories yet: they follow from confirmed diameters of target lesions alone."
        draw_text(page, _MARGIN + _LABELS, top + 24 + 2 * _TABLE_ROW, text, 12, SUGGESTED)
    if left_out:
        text = f"{left_out} visits between the first and the last {len(visits) - 1} are not shown."
        draw_text(page, WIDTH - _MARGIN, bottom, text, 10.5, SUGGESTED, align="right")
    page[bottom + 8 : bottom + 9, _MARGIN : WIDTH - _MARGIN] = MUTED
    return bottom + 16


def _when(course: Course, visit: Visit) -> str:
    """Date, days since the first visit, slice thickness, as far as known."""
    parts = [visit.date or "date not known"]
    first = course.visits[0]
    if visit.date and first.date and visit is not first:
        days = (datetime.date.fromisoformat(visit.date) - datetime.date.fromisoformat(first.date)).days
        parts.append(f"day {days}")
    if visit.slice_thickness_mm:
        parts.append(f"{visit.modality} {visit.slice_thickness_mm:g} mm".strip())
    return ", ".join(parts)


def _percent(value: float | None, millimeters: float | None = None) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:+.0f} %" + ("" if millimeters is None else f" ({millimeters:+.1f} mm)")


def _color(category: str) -> tuple[int, int, int]:
    if "PD" in category and "non" not in category:
        return _PD
    return _PR if category in ("CR", "PR", "iCR", "iPR") else _OTHER


# --- lesions --------------------------------------------------------------------------------------------------------
def _matrix(
    page: np.ndarray,
    course: Course,
    visits: list[Visit],
    images: Mapping[str, Volume],
    layout: _Layout,
    top: int,
) -> int:
    """A row per lesion, a thumbnail with its figures per visit."""
    pitch = layout.pitch
    shown = course.lesions[: layout.rows]
    widths = [_width_mm(lesion) for lesion in shown]
    changes = [dict(zip([v.name for v in course.visits], changes_of(course, one), strict=True)) for one in shown]
    for row, lesion in enumerate(shown):
        _lesion_label(page, course, lesion, top + row * pitch + 22)
        page[top + (row + 1) * pitch - 4, _MARGIN : WIDTH - _MARGIN] = RULE
    for number, visit in enumerate(visits):
        x = _MARGIN + _LABELS + number * layout.column
        image = _image_of(visit, images) if layout.thumb else None
        for row, lesion in enumerate(shown):
            reading = lesion.readings.get(visit.name)
            y = top + row * pitch
            if layout.thumb:
                _picture(page, x, y + 4, layout.thumb, widths[row], image, reading)
            if reading is not None:
                change = changes[row][visit.name][0]
                gap = layout.thumb + 8 if layout.thumb else 0
                _caption(page, x + gap, y + 20, layout.column - gap - 10, reading, change)
    bottom = top + len(shown) * pitch
    if len(course.lesions) > len(shown):
        rest = ", ".join(lesion.name for lesion in course.lesions[len(shown) :])
        text = fit_text(f"Not shown for want of room: {rest}.", 10.5, WIDTH - 2 * _MARGIN)
        draw_text(page, _MARGIN, bottom + 14, text, 10.5, SUGGESTED)
        bottom += 24
    return bottom


def _lesion_label(page: np.ndarray, course: Course, lesion: CourseLesion, top: int) -> None:
    room = _LABELS - 20
    draw_text(page, _MARGIN, top, fit_text(lesion.name, 14, room), 14, INK, bold=True)
    site = lesion.organ or "site not told"
    lines = [f"{site}, lymph node" if lesion.node else site, lesion.role]
    first = next((v for v in course.visits if v.name in lesion.readings), None)
    place = lesion.readings[first.name].position if first is not None else None
    if place is not None:
        letters = [("L", "R"), ("P", "A"), ("S", "I")]
        lines.append(
            " ".join(f"{(pair[0] if v >= 0 else pair[1])}{abs(v):.0f}" for pair, v in zip(letters, place, strict=True))
        )
    for number, line in enumerate(lines, start=1):
        draw_text(page, _MARGIN, top + 22 * number, fit_text(line, 10.5, room), 10.5, MUTED)


def _width_mm(lesion: CourseLesion) -> float:
    """Of a lesion's thumbnails: the same at every visit, so that growth is seen."""
    sizes = [value for reading in lesion.readings.values() if (value := diameters_of(reading)[0]) is not None]
    return float(np.clip(2.6 * max([*sizes, 0.0]), 40.0, 160.0))


def _image_of(visit: Visit, images: Mapping[str, Volume]) -> Volume | None:
    """The visit's image; None where it cannot be read, which the page says."""
    if visit.name in images:
        return images[visit.name]
    try:
        return read_volume(visit.image) if visit.image else None
    except InputError:
        return None


def _picture(
    page: np.ndarray, x: int, y: int, size: int, width_mm: float, image: Volume | None, reading: Reading | None
) -> None:
    page[y : y + size, x : x + size] = (236, 238, 241)
    if reading is None or image is None or reading.position is None:
        text = "not read" if reading is None else "image not at hand" if image is None else reading.state
        draw_text(page, x + size / 2, y + size / 2 + 4, fit_text(text, 10, size - 8), 10, MUTED, align="center")
        return
    lines = [None if line is None else np.asarray(line) for line in (reading.longest_line, reading.short_line)]
    center = np.asarray(reading.position, dtype=float) if lines[0] is None else lines[0].mean(0)
    picture = thumbnail(image, center, width_mm, size, contour=_contour_of(reading), longest=lines[0], short=lines[1])
    page[y : y + size, x : x + size] = picture
    length = 10.0 / width_mm * size
    page[y + size - 9 : y + size - 7, x + 8 : x + 8 + round(length)] = 255
    draw_text(page, x + 8, y + size - 14, "10 mm", 8, (255, 255, 255), halo=True)
    draw_text(page, x + 5, y + size / 2 + 4, "R", 9, (255, 255, 255), halo=True)


def _contour_of(reading: Reading) -> Volume | None:
    """The reading's contour as a mask; None without one, or where its file is gone."""
    try:
        return reading_contour(reading)
    except InputError:
        return None


def _caption(page: np.ndarray, x: int, y: int, room: int, reading: Reading, change: float | None) -> None:
    """Diameters, change, volume, state; who confirmed. Orange where nobody has."""
    longest, short = diameters_of(reading)
    suggested = reading.confirmed is None
    color = SUGGESTED if suggested else INK
    lines: list[tuple[str, float, tuple[int, int, int], bool]] = []
    if longest == 0:
        lines.append(("0 mm", 12.5, color, True))
    elif longest is not None:
        error = reading.longest_error_mm
        lines.append((f"{longest:.1f}{f' ± {error:.1f}' if suggested and error else ''} mm", 12.5, color, True))
        if short is not None:
            lines.append((f"x {short:.1f} mm", 11.0, color, False))
    if change is not None:
        lines.append((f"{change:+.0f} %", 11.0, color, False))
    if reading.volume_ml is not None:
        lines.append((f"{reading.volume_ml:.{1 if reading.volume_ml >= 1 else 2}f} ml", 11.0, INK, False))
    if reading.state != BASELINE:
        lines.append((reading.state, 11.0, INK, False))
    if reading.confirmed is None:
        lines.append(("suggested", 9.5, SUGGESTED, False))
    else:
        lines.append((reading.confirmed.by or "confirmed", 9.5, MUTED, False))
        lines.append((reading.confirmed.when[:10], 9.5, MUTED, False))
    for number, (text, height, ink, bold) in enumerate(line for line in lines if line[0]):
        draw_text(page, x, y + 22 * number, fit_text(text, height, room), height, ink, bold=bold)


# --- bottom ---------------------------------------------------------------------------------------------------------
def _rules(page: np.ndarray, course: Course, assessed: Assessment, top: int) -> int:
    """Which rule decided at the last visits, what is doubtful, what keeps lesions from counting."""
    lines = []
    for entry in assessed.visits[1:][-3:]:
        known = CATEGORIES.get(entry.recist.category, "")
        lines.append((f"{entry.visit}: {entry.recist.category} ({known}). {entry.recist.reason}", INK))
        if entry.immune.category not in (entry.recist.category, f"i{entry.recist.category}"):
            lines.append((f"{entry.visit}: {entry.immune.category}. {entry.immune.reason}", INK))
    lines += [(note, SUGGESTED) for note in assessed.notes]
    for visit in course.visits[1:][::-1]:
        for lesion in course.lesions:
            reading = lesion.readings.get(visit.name)
            if reading is not None and reading.reason:
                lines.append((f"{visit.name}, {lesion.name}: {reading.reason}", MUTED))
    room = (HEIGHT - _PLOTS - 96 - top) // 21
    shown = lines if len(lines) <= room else lines[: max(room - 1, 0)]
    if len(shown) < len(lines) and room > 0:
        shown = [*shown, (f"{len(lines) - len(shown)} more sentences are in the course.", SUGGESTED)]
    for number, (text, color) in enumerate(shown):
        draw_text(page, _MARGIN, top + 20 + 21 * number, fit_text(text, 10.5, WIDTH - 2 * _MARGIN), 10.5, color)
    return top + 20 + 21 * len(shown)


def _plots(page: np.ndarray, course: Course) -> None:
    top = HEIGHT - _PLOTS - 72
    gap, width = 30, WIDTH - 2 * _MARGIN
    first = int(0.55 * width)
    page[top : top + _PLOTS, _MARGIN : _MARGIN + first] = spider(course, first, _PLOTS)
    second = width - first - gap
    page[top : top + _PLOTS, WIDTH - _MARGIN - second : WIDTH - _MARGIN] = waterfall(course, second, _PLOTS)


def _footer(page: np.ndarray) -> None:
    y = HEIGHT - 40
    page[y - 24 : y - 23, _MARGIN : WIDTH - _MARGIN] = RULE
    x: float = _MARGIN
    for color, text in ((LONGEST_COLOR, "longest diameter"), (SHORT_COLOR, "short axis"), (CONTOUR_COLOR, "contour")):
        page[y - 9 : y + 1, int(x) : int(x) + 16] = np.asarray(color) * 0.9
        x = draw_text(page, x + 22, y, text, 10, MUTED) + 22
    draw_text(page, x, y, "axial, patient's right on the left", 10, MUTED)
    draw_text(page, WIDTH - _MARGIN, y, NOTICE, 10, INK, align="right")
