"""The course of one patient: visits, lesions, what was proposed and what a person confirmed; kept as a JSON file.

The file's fields are described in docs/course-format.md. Everything here is plain data, so that the engine, the Slicer
modules and reports share it; how a course is changed is in course_changes.py. Frame: LPS mm of each visit's own image.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, ResourceError, check_at_hand
from ..io.files import replaced

FORMAT = "samconvex course"
VERSION = 1

BASELINE = "baseline"
UNCHANGED, GROWN, SHRUNK, GONE, NEW = "unchanged", "grown", "shrunk", "gone", "new"
MERGED, SPLIT, NOT_FOUND, OUTSIDE = "merged", "split", "not found", "outside"
# States of a lesion at a follow-up; at the visit where it was marked it is BASELINE, or NEW at a later one.
STATES = (UNCHANGED, GROWN, SHRUNK, GONE, NEW, MERGED, SPLIT, NOT_FOUND, OUTSIDE)

TARGET, NON_TARGET, NEW_LESION, UNCLASSIFIED = "target", "non-target", "new", "unclassified"
ROLES = (TARGET, NON_TARGET, NEW_LESION, UNCLASSIFIED)

MEASURED, DISAPPEARED, TOO_SMALL, NOT_EVALUABLE, STATE_ONLY = (
    "measured",
    "disappeared",
    "too small",
    "not evaluable",
    "state",
)
KINDS = (MEASURED, DISAPPEARED, TOO_SMALL, NOT_EVALUABLE, STATE_ONLY)


@dataclass
class Confirmation:
    """What a person confirmed of a lesion at a visit.

    Attributes:
        kind: one of :data:`KINDS`; "state" confirms the reading's state without a measurement.
        longest_mm, short_axis_mm: mm; 0 for "disappeared", 5 for "too small", None where not evaluable or not measured.
        by: name of the reader. when: ISO date and time.
    """

    kind: str
    longest_mm: float | None = None
    short_axis_mm: float | None = None
    by: str = ""
    when: str = ""


@dataclass
class Fragment:
    """One part of a lesion that has split. position (3,) LPS mm; lines (2, 3) end points, LPS mm."""

    position: list[float]
    longest_mm: float
    short_axis_mm: float
    volume_ml: float
    longest_line: list[list[float]] | None = None
    short_line: list[list[float]] | None = None


@dataclass
class Reading:
    """One lesion at one visit.

    Attributes:
        state: what counts, one of :data:`STATES` or "baseline"; the proposal until a person says otherwise.
        proposed_state: what the engine proposed; "" where it did not.
        position: (3,) LPS mm of the visit's image; None where it is not known.
        score: in [0, 1], how surely the lesion is there. cycle_mm: return error of its place.
        loop_mm: how far the place through the visit before lies from the place straight from the baseline.
        error90_mm: nine of ten lesions with these figures lie nearer to ``position`` than this.
        longest_mm, short_axis_mm, volume_ml: suggested size; of a lesion that has split the sum over its fragments
            (RECIST 1.1 adds them), of lesions that have merged the whole's, held by the first of them alone.
        longest_error_mm, short_axis_error_mm, volume_error_ml: expected error (one standard deviation).
        longest_line, short_line: (2, 3) end points of the diameters, LPS mm.
        contour: file of the contour (suggested; as drawn where the lesion was marked); None without one.
        contour_label: its value in that file; None: every value above 0.
        confirmed: what a person confirmed; None before.
        merged_with: names of the lesions that it has merged with. split_into: its fragments, the largest first.
        reason: one sentence on every doubt; "" without.
        extra: what other programs keep here, plain JSON; written back as it was read.
    """

    state: str
    proposed_state: str = ""
    position: list[float] | None = None
    score: float | None = None
    cycle_mm: float | None = None
    loop_mm: float | None = None
    error90_mm: float | None = None
    longest_mm: float | None = None
    short_axis_mm: float | None = None
    volume_ml: float | None = None
    longest_error_mm: float | None = None
    short_axis_error_mm: float | None = None
    volume_error_ml: float | None = None
    longest_line: list[list[float]] | None = None
    short_line: list[list[float]] | None = None
    contour: str | None = None
    contour_label: int | None = None
    confirmed: Confirmation | None = None
    merged_with: list[str] = field(default_factory=list)
    split_into: list[Fragment] = field(default_factory=list)
    reason: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Visit:
    """One time point.

    Attributes:
        name: unique in the course. date: ISO (2026-11-27); None where it is not known.
        image: file or DICOM folder; None where the image is known to the caller alone.
        modality: as in DICOM (CT, MR); "" unknown. series: its description or UID.
        slice_thickness_mm: None unknown. spacing_mm: (3,) of the voxels. sha256: checksum of the image's file(s).
        notes: sentences on the image.
        extra: as in :class:`Reading`.
    """

    name: str
    date: str | None = None
    image: str | None = None
    modality: str = ""
    series: str = ""
    slice_thickness_mm: float | None = None
    spacing_mm: list[float] | None = None
    sha256: str = ""
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class CourseLesion:
    """One lesion through all visits.

    Attributes:
        name: unique in the course. role: one of :data:`ROLES`. organ: "" unknown. node: a lymph node.
        readings: by the visit's name; a visit without an entry was not read for this lesion.
        extra: as in :class:`Reading`.
    """

    name: str
    role: str = UNCLASSIFIED
    organ: str = ""
    node: bool = False
    readings: dict[str, Reading] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Course:
    """All visits of one patient, the baseline first, in order of time.

    Attributes:
        patient: name to show. patient_id: DICOM PatientID, "" unknown.
        extra: as in :class:`Reading`.
    """

    patient: str = ""
    patient_id: str = ""
    visits: list[Visit] = field(default_factory=list)
    lesions: list[CourseLesion] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def visit(self, name: str) -> Visit:
        """A visit by name. InputError: there is none."""
        found = next((visit for visit in self.visits if visit.name == name), None)
        if found is None:
            raise InputError(f"The course has no visit called {name}; it has {', '.join(v.name for v in self.visits)}.")
        return found

    def files(self) -> list[str]:
        """Every image and contour that the course points to."""
        return [getattr(record, key) for record, key in _paths(self)]

    def lesion(self, name: str) -> CourseLesion:
        """A lesion by name. InputError: there is none."""
        found = next((lesion for lesion in self.lesions if lesion.name == name), None)
        if found is None:
            known = ", ".join(lesion.name for lesion in self.lesions) or "none"
            raise InputError(f"The course has no lesion called {name}; it has {known}.")
        return found


def course_to_dict(course: Course, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """Plain values for JSON.

    Args:
        folder: of the course's file; paths become relative to it where both are on one drive.
    """
    values = dataclasses.asdict(course)
    if folder is not None:
        for record, key in _paths(values):
            record[key] = _relative(record[key], Path(folder))
    return {"format": FORMAT, "version": VERSION, **values}


def course_from_dict(values: object, name: str, folder: str | os.PathLike | None = None) -> Course:
    """The course that plain values describe.

    Args:
        name: of the file, for messages. folder: that relative paths start from.

    Raises:
        InputError: another format or version, a field that is missing, of another type or value; names it.
    """
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise InputError(f'{name} is no course of lesions (no "format": "{FORMAT}"); give one that was saved as such.')
    if values.get("version") != VERSION:
        raise InputError(
            f"{name} has version {values.get('version')} of the course format, this program reads version {VERSION}; "
            "update SAMConvex, or save the course again with the program that wrote it."
        )
    content = {key: value for key, value in values.items() if key not in ("format", "version")}
    course = _decoded(Course, content, name, "")
    _check(course, name)
    if folder is not None:
        for record, key in _paths(course):
            path = getattr(record, key)
            setattr(record, key, os.path.normpath(Path(folder) / path))
    return course


def read_course(path: str | os.PathLike) -> Course:
    """Read a course; its paths come back absolute.

    Raises:
        InputError: missing, no JSON, or see :func:`course_from_dict`.
    """
    check_at_hand(path, "of the course")
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} could not be read as JSON; give a course.json that was saved whole.") from error
    return course_from_dict(values, str(path), Path(path).absolute().parent)


def write_course(course: Course, path: str | os.PathLike) -> None:
    """Write a course at once or not at all; an existing file is replaced.

    Raises:
        InputError: the course contradicts itself (names that repeat, readings of no visit, a number that is none).
        ResourceError: the disk refused.
    """
    _check(course, "The course")
    target = Path(path)
    try:
        text = json.dumps(course_to_dict(course, target.absolute().parent), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"The course holds a value that JSON has not ({error}); correct or remove it.") from error
    try:
        with replaced(target) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written ({error.strerror or error}); choose another place."
        ) from error


def _paths(course: Course | dict[str, Any]) -> list[tuple[Any, str]]:
    """(record, key) of every path in a course, as dataclasses or plain values."""

    def of(record: Any, key: str) -> Any:
        return record[key] if isinstance(record, dict) else getattr(record, key)

    found = [(visit, "image") for visit in of(course, "visits")]
    found += [(reading, "contour") for lesion in of(course, "lesions") for reading in of(lesion, "readings").values()]
    return [(record, key) for record, key in found if of(record, key)]


def _relative(path: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        # Another drive.
        return path


def _decoded(kind: Any, values: object, name: str, place: str) -> Any:
    """A dataclass of ``kind`` from plain values; ``place`` is where in the file they stand."""
    if not isinstance(values, Mapping):
        raise InputError(f"{name}: {place or 'the course'} is no object with fields; correct or remove it.")
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    strangers: dict[str, Any] = {}
    for key, value in values.items():
        if key in hints:
            arguments[key] = _value(hints[key], value, name, f"{place}{'.' if place else ''}{key}")
        else:
            strangers[str(key)] = value
    missing = [
        entry.name
        for entry in dataclasses.fields(kind)
        if entry.name not in arguments
        and entry.default is dataclasses.MISSING
        and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{name}: {place} has no {missing[0]}; add it or remove the entry.")
    if strangers and "extra" in hints:
        arguments["extra"] = {**arguments.get("extra", {}), **strangers}
    return kind(**arguments)


def _value(hint: Any, value: Any, name: str, place: str) -> Any:
    """``value`` checked against a field's type and decoded."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(inner[0], value, name, place)
    if dataclasses.is_dataclass(hint):
        return _decoded(hint, value, name, place)
    if origin is list and isinstance(value, list):
        return [_value(inner[0], entry, name, f"{place}[{number}]") for number, entry in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {str(k): v if inner[1] is Any else _value(inner[1], v, name, f"{place}[{k}]") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (str, bool, int) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}.get(
        hint, "a list" if origin is list else "a map"
    )
    raise InputError(f"{name}: {place} is {json.dumps(value)[:40]}, not {wanted}; correct it.")


def _check(course: Course, name: str) -> None:
    """Refuse what no course can be: the rules that types alone do not tell."""
    for what, names in (("visits", course.visits), ("lesions", course.lesions)):
        every = [entry.name for entry in names]  # type: ignore[attr-defined]
        twice = next((entry for entry in every if every.count(entry) > 1 or not entry), None)
        if twice is not None:
            raise InputError(f"{name}: two {what} are called '{twice}', or one has no name; give each its own.")
    known = {visit.name for visit in course.visits}
    for visit in course.visits:
        if visit.date is not None and not _is_day(visit.date):
            raise InputError(f"{name}: the date of {visit.name} is '{visit.date}'; write it as 2026-11-27, or null.")
        _check_shape(visit.spacing_mm, (3,), name, f"spacing_mm of {visit.name}")
    for lesion in course.lesions:
        _check_word(lesion.role, ROLES, name, f"the role of {lesion.name}")
        for visit_name, reading in lesion.readings.items():
            where = f"{lesion.name} at {visit_name}"
            if visit_name not in known:
                raise InputError(f"{name}: {where} is read, but there is no such visit; add it or remove the reading.")
            _check_word(reading.state, (BASELINE, *STATES), name, f"the state of {where}")
            _check_word(reading.proposed_state, ("", BASELINE, *STATES), name, f"proposed_state of {where}")
            _check_shape(reading.position, (3,), name, f"position of {where}")
            for line in ("longest_line", "short_line"):
                _check_shape(getattr(reading, line), (2, 3), name, f"{line} of {where}")
            if reading.confirmed is not None:
                _check_word(reading.confirmed.kind, KINDS, name, f"what was confirmed of {where}")
                for key in ("longest_mm", "short_axis_mm"):
                    value = getattr(reading.confirmed, key)
                    if value is not None and not 0 <= value < 1000:
                        raise InputError(f"{name}: {key} confirmed of {where} is {value:g}; give 0 to 1000 mm.")


def _is_day(text: str) -> bool:
    """True for a day as dates are compared: 2026-11-27."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _check_word(value: str, allowed: tuple[str, ...], name: str, what: str) -> None:
    if value not in allowed:
        raise InputError(f"{name}: {what} is '{value}'; use one of {', '.join(word for word in allowed if word)}.")


def _check_shape(value: Any, shape: tuple[int, ...], name: str, what: str) -> None:
    if value is None:
        return
    rows = [value] if len(shape) == 1 else value
    counts = (len(rows), *{len(row) for row in rows})[1 - (len(shape) - 1) :]
    if counts != shape:
        raise InputError(f"{name}: {what} has not {' x '.join(map(str, shape))} numbers; correct or remove it.")
