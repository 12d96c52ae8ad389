"""What tracking found, written into a course; and the lesions of a course, to be tracked again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.dicom import VisitFacts, visit_facts
from ..io.files import file_sha256
from ..io.images import read_labels
from ..space.volume import Volume
from .course import BASELINE, Course, CourseLesion, Fragment, Reading, Visit
from .findings import Finding, TrackingResult
from .lesion import Lesion
from .measurement import Measurement
from .precision import ExpectedError


def visit_of(name: str, path: str | os.PathLike, image: Volume, date: str | None) -> tuple[Visit, VisitFacts]:
    """A visit with the facts of its image; ``date`` (ISO), where it was typed, before that of the DICOM series."""
    facts = visit_facts(path)
    notes = list(image.notes)
    if date is not None and facts.date is not None and date != facts.date:
        notes.append(f"{path} is dated {facts.date} by its DICOM series, {date} was typed.")
    visit = Visit(
        name,
        date or facts.date,
        os.path.abspath(path),
        facts.modality or image.modality.upper(),
        facts.series,
        facts.slice_thickness_mm,
        [round(float(step), 6) for step in image.grid.spacing],
        file_sha256(path),
        notes,
    )
    return visit, facts


def readings_of(
    result: TrackingResult, follow_up: int, contours: Mapping[str, tuple[str, int | None]]
) -> dict[str, Reading]:
    """The readings of one follow-up by lesion.

    Args:
        contours: file and value of the suggested contour by lesion, where there is one.
    """
    return {
        finding.lesion: _reading(finding, contours.get(finding.lesion))
        for finding in result.findings
        if finding.follow_up == follow_up
    }


def marked_readings(result: TrackingResult, contours: Mapping[str, tuple[str, int | None]]) -> dict[str, Reading]:
    """The readings of the image that the lesions were marked in; arguments as in :func:`readings_of`."""
    readings = {}
    for lesion in result.lesions:
        reading = Reading(BASELINE, BASELINE, _numbers(lesion.point), reason=lesion.note)
        _put_size(reading, result.baseline.get(lesion.name), result.errors.get(lesion.name))
        reading.contour, reading.contour_label = contours.get(lesion.name, (None, None))
        readings[lesion.name] = reading
    return readings


def _reading(finding: Finding, contour: tuple[str, int | None] | None) -> Reading:
    def known(value: float, digits: int) -> float | None:
        return round(float(value), digits) if np.isfinite(value) else None

    reading = Reading(
        finding.state,
        finding.state,
        _numbers(finding.position) if np.isfinite(finding.position).all() else None,
        round(finding.score, 4),
        known(finding.cycle_mm, 2),
        known(finding.loop_mm, 2),
        known(finding.error90_mm, 1),
        merged_with=list(finding.merged_with),
        reason=finding.reason,
    )
    _put_size(reading, finding.measurement, finding.error)
    if contour is not None:
        reading.contour, reading.contour_label = contour
    reading.split_into = [
        Fragment(
            _numbers(place),
            round(size.longest_mm, 3),
            round(size.short_axis_mm, 3),
            round(size.volume_ml, 5),
            _lines(size.longest_points),
            _lines(size.short_axis_points),
        )
        for size, place in finding.fragments
    ]
    return reading


def _put_size(reading: Reading, size: Measurement | None, error: ExpectedError | None) -> None:
    if size is not None:
        reading.longest_mm = round(size.longest_mm, 3)
        reading.short_axis_mm = round(size.short_axis_mm, 3)
        reading.volume_ml = round(size.volume_ml, 5)
        reading.longest_line, reading.short_line = _lines(size.longest_points), _lines(size.short_axis_points)
    if error is not None:
        reading.longest_error_mm = round(error.longest_mm, 3)
        reading.short_axis_error_mm = round(error.short_axis_mm, 3)
        reading.volume_error_ml = round(error.volume_ml, 5)


def marked_lesions(course: Course) -> dict[str, list[CourseLesion]]:
    """The lesions by the name of the visit where each was read first, in the order of the visits."""
    groups: dict[str, list[CourseLesion]] = {}
    for visit in course.visits:
        for lesion in course.lesions:
            if visit.name in lesion.readings and not any(lesion in group for group in groups.values()):
                groups.setdefault(visit.name, []).append(lesion)
    return groups


def lesion_of(lesion: CourseLesion, visit: Visit) -> Lesion:
    """A lesion as the visit's reading shows it: by its contour, else its diameters, else its position.

    Raises:
        InputError: the reading has none of them, or its contour is not there.
    """
    reading = lesion.readings[visit.name]
    if reading.contour is not None:
        if not Path(reading.contour).is_file():
            raise InputError(
                f"The contour of {lesion.name} at {visit.name}, {reading.contour}, is not there; put it back or remove "
                "it from the course."
            )
        mask = reading_contour(reading)
        assert mask is not None
        return Lesion.from_mask(lesion.name, mask)
    if reading.longest_line is not None:
        lines = [line for line in (reading.longest_line, reading.short_line) if line is not None]
        return Lesion.from_diameters(lesion.name, np.array(lines))
    if reading.position is None:
        raise InputError(f"{lesion.name} has no place at {visit.name}; mark it there, or remove it from the course.")
    return Lesion(lesion.name, np.array(reading.position))


def reading_contour(reading: Reading) -> Volume | None:
    """The contour of a reading as a binary label volume; None where it has none.

    Raises:
        InputError: the file is not there or no label map.
    """
    if reading.contour is None:
        return None
    labels = read_labels(reading.contour)
    inside = labels.tensor > 0 if reading.contour_label is None else labels.tensor == reading.contour_label
    return labels.with_tensor(inside.to(labels.tensor.dtype))


def combined(results: Sequence[TrackingResult]) -> TrackingResult:
    """Results of the same follow-ups from several images that lesions were marked in, as one."""
    if len(results) == 1:
        return results[0]
    count = len(results[0].sources) - 1
    findings = [
        finding for number in range(count) for result in results for finding in result.findings
        if finding.follow_up == number
    ]  # fmt: skip
    return TrackingResult(
        tuple(lesion for result in results for lesion in result.lesions),
        tuple(findings),
        {name: size for result in results for name, size in result.baseline.items()},
        results[0].sources,
        {name: error for result in results for name, error in result.errors.items()},
    )


def _numbers(point: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in point]


def _lines(ends: np.ndarray) -> list[list[float]]:
    return [_numbers(end) for end in ends]
