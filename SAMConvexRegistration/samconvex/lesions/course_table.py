"""The course as a table for spreadsheets: a line per lesion and visit with everything that is known of it."""

from __future__ import annotations

import csv
import math
import os
from typing import Any

from ..errors import InputError, ResourceError
from ..io.files import replaced
from .assessment import VisitAssessment, assess_course, changes_of, shown_mm
from .course import Course, CourseLesion, Reading, Visit

COLUMNS = (
    "patient",
    "patient_id",
    "lesion",
    "role",
    "organ",
    "lymph_node",
    "visit",
    "date",
    "state",
    "proposed_state",
    "x",
    "y",
    "z",
    "score",
    "cycle_mm",
    "loop_mm",
    "error90_mm",
    "longest_mm",
    "longest_error_mm",
    "short_axis_mm",
    "short_axis_error_mm",
    "volume_ml",
    "volume_error_ml",
    "confirmed",
    "confirmed_longest_mm",
    "confirmed_short_axis_mm",
    "confirmed_by",
    "confirmed_when",
    "counted_mm",
    "since_first_percent",
    "since_smallest_percent",
    "merged_with",
    "fragments",
    "reason",
    "sum_mm",
    "sum_since_baseline_percent",
    "sum_since_smallest_percent",
    "recist",
    "recist_rule",
    "irecist",
    "irecist_rule",
    "series",
    "slice_thickness_mm",
)
DELIMITERS = (",", ";")
# A spreadsheet would run what begins so as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def course_rows(course: Course) -> list[dict[str, Any]]:
    """Values by :data:`COLUMNS`, lesion by lesion, visits in order; None where nothing is known.

    ``counted_mm`` is the confirmed diameter, else the suggested one that would count. Sums and responses are those of
    the visit and follow from confirmed readings alone. Positions are LPS mm of the visit's image.
    """
    assessed = {entry.visit: entry for entry in assess_course(course).visits}
    rows = []
    for lesion in course.lesions:
        for visit, change in zip(course.visits, changes_of(course, lesion), strict=True):
            reading = lesion.readings.get(visit.name)
            rows.append(
                {
                    **dict.fromkeys(COLUMNS),
                    **_whose(course, lesion, visit),
                    **(_read(reading) if reading is not None else {}),
                    "counted_mm": shown_mm(lesion, reading),
                    "since_first_percent": change[0],
                    "since_smallest_percent": change[1],
                    **(_response(assessed[visit.name]) if visit.name in assessed else {}),
                }
            )
    return rows


def write_course_csv(course: Course, path: str | os.PathLike, delimiter: str = ",") -> None:
    """Write the table as CSV in UTF-8 with the mark by which spreadsheets know it; an existing file is replaced.

    Args:
        delimiter: "," for programs and English spreadsheets; ";" for those of languages with a decimal comma, in which
            numbers are then written.

    Raises:
        InputError: another delimiter. ResourceError: the disk refused.
    """
    if delimiter not in DELIMITERS:
        raise InputError(f"'{delimiter}' cannot separate the table's columns; use one of {' '.join(DELIMITERS)}.")
    try:
        with replaced(path) as temporary, open(temporary, "w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter, lineterminator="\r\n")
            writer.writerow(COLUMNS)
            writer.writerows([_cell(row[name], delimiter) for name in COLUMNS] for row in course_rows(course))
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written ({error.strerror or error}); choose another place."
        ) from error


def _whose(course: Course, lesion: CourseLesion, visit: Visit) -> dict[str, Any]:
    return {
        "patient": course.patient,
        "patient_id": course.patient_id,
        "lesion": lesion.name,
        "role": lesion.role,
        "organ": lesion.organ,
        "lymph_node": "yes" if lesion.node else "no",
        "visit": visit.name,
        "date": visit.date,
        "series": visit.series,
        "slice_thickness_mm": visit.slice_thickness_mm,
    }


def _read(reading: Reading) -> dict[str, Any]:
    sizes = ("longest_mm", "longest_error_mm", "short_axis_mm", "short_axis_error_mm", "volume_ml", "volume_error_ml")
    same = ("state", "proposed_state", "score", "cycle_mm", "loop_mm", "error90_mm", *sizes, "reason")
    values: dict[str, Any] = {name: getattr(reading, name) for name in same}
    values |= dict(zip("xyz", reading.position or (None,) * 3, strict=True))
    values["merged_with"] = ", ".join(reading.merged_with)
    values["fragments"] = len(reading.split_into) or None
    if reading.confirmed is not None:
        values |= {
            "confirmed": reading.confirmed.kind,
            "confirmed_longest_mm": reading.confirmed.longest_mm,
            "confirmed_short_axis_mm": reading.confirmed.short_axis_mm,
            "confirmed_by": reading.confirmed.by,
            "confirmed_when": reading.confirmed.when,
        }
    return values


def _response(assessed: VisitAssessment) -> dict[str, Any]:
    return {
        "sum_mm": assessed.recist.sum_mm,
        "sum_since_baseline_percent": assessed.recist.change_since_baseline_percent,
        "sum_since_smallest_percent": assessed.recist.change_since_nadir_percent,
        "recist": assessed.recist.category,
        "recist_rule": assessed.recist.reason,
        "irecist": assessed.immune.category,
        "irecist_rule": assessed.immune.reason,
    }


def _cell(value: Any, delimiter: str) -> str:
    """Numbers with up to 4 digits after the point (or comma); texts that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        text = f"{value:.4f}".rstrip("0").rstrip(".")
        text = "0" if text == "-0" else text
        return text.replace(".", ",") if delimiter == ";" else text
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
