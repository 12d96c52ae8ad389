"""What follows from a course: sums, changes and categories of every visit, from what a person confirmed alone.

The step from readings (course.py) to the published rules (targets.py, response.py, irecist.py). What the rules leave to
a person is kept with the visit, under :data:`JUDGEMENT` of its ``extra``.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from .course import (
    DISAPPEARED,
    GONE,
    MEASURED,
    MERGED,
    NEW_LESION,
    NON_TARGET,
    NOT_EVALUABLE,
    NOT_FOUND,
    OUTSIDE,
    TARGET,
    TOO_SMALL,
    UNCLASSIFIED,
    Course,
    CourseLesion,
    Reading,
    Visit,
)
from .irecist import ImmuneResponse, NewLesions, assess_immune_response
from .response import Response, assess_response, non_target_category
from .targets import (
    TOO_SMALL_MM,
    Candidate,
    Proposal,
    counted_diameter,
    counted_of_merged,
    propose_targets,
    target_violations,
)

# In a visit's ``extra``: {"non_targets_progress", "non_targets_grew", "new_lesions_grew", "new_lesion": true}.
JUDGEMENT = "response"
JUDGEMENTS = ("non_targets_progress", "non_targets_grew", "new_lesions_grew", "new_lesion")
# A new lesion that a person saw and nobody listed.
UNLISTED = "a new lesion that is not listed"


@dataclass(frozen=True)
class VisitAssessment:
    """One visit.

    Attributes:
        visit: its name. recist: RECIST 1.1. immune: iRECIST.
        counted_mm: by target, what it counts in mm; None where it is not confirmed or not evaluable.
        volume_ml, volume_change_percent: of all targets together as measured by the program, and against the baseline;
            None where one has no volume.
    """

    visit: str
    recist: Response
    immune: ImmuneResponse
    counted_mm: dict[str, float | None]
    volume_ml: float | None
    volume_change_percent: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite change (from a sum of 0) is None."""
        values = asdict(self)
        for record in (values, values["recist"]):
            record.update((key, None) for key, value in record.items() if value in (float("inf"), float("-inf")))
        return values


@dataclass(frozen=True)
class Assessment:
    """All visits in order, and sentences on what keeps lesions from counting or is against the rules."""

    visits: tuple[VisitAssessment, ...]
    notes: tuple[str, ...]


def assess_course(course: Course) -> Assessment:
    """Sums, changes and categories of every visit; no visits while no lesion of the baseline can be judged."""
    notes = _open_ends(course)
    if not course.visits:
        return Assessment((), tuple(notes))
    first = course.visits[0]
    rows = [counted_at(course, visit) for visit in course.visits]
    targets = [lesion for lesion in course.lesions if lesion.role == TARGET and rows[0].get(lesion.name)]
    others = [lesion for lesion in course.lesions if lesion.role == NON_TARGET and first.name in lesion.readings]
    notes += target_violations(candidate(lesion, first) for lesion in targets)
    if not targets and not others:
        return Assessment((), tuple(notes))
    names = [lesion.name for lesion in targets]
    rows = [{name: row.get(name) for name in names} for row in rows]
    news = _new_lesions(course)
    responses = assess_response(
        rows,
        nodes=[lesion.name for lesion in targets if lesion.node],
        new_lesions=[entry.present for entry in news],
        non_targets=[_non_targets(others, visit) for visit in course.visits] if others else (),
    )
    days = [datetime.date.fromisoformat(visit.date) if visit.date else None for visit in course.visits]
    immune = assess_immune_response(responses, news, days)
    volumes = [_volume(targets, visit) for visit in course.visits]
    changes = [percent_change(volume, volumes[0]) for volume in volumes]
    return Assessment(
        tuple(
            VisitAssessment(visit.name, *entry)
            for visit, *entry in zip(course.visits, responses, immune, rows, volumes, changes, strict=True)
        ),
        tuple(notes),
    )


def candidate(lesion: CourseLesion, visit: Visit) -> Candidate:
    """A lesion as a visit shows it: confirmed diameters, else the suggested ones."""
    reading = lesion.readings.get(visit.name)
    longest, short = diameters_of(reading) if reading is not None else (None, None)
    return Candidate(lesion.name, longest, short, lesion.node, lesion.organ, visit.slice_thickness_mm)


def propose_roles(course: Course) -> list[Proposal]:
    """Roles for the lesions of the baseline that are not new ones, see :func:`propose_targets`."""
    first = course.visits[0]
    lesions = [lesion for lesion in course.lesions if lesion.role != NEW_LESION and first.name in lesion.readings]
    return propose_targets(candidate(lesion, first) for lesion in lesions)


def confirmed_mm(lesion: CourseLesion, reading: Reading | None) -> float | None:
    """What a reading counts in mm by what was confirmed; None where nothing was, or it is not evaluable."""
    if reading is None or reading.confirmed is None:
        return None
    confirmed = reading.confirmed
    if confirmed.kind == MEASURED:
        return counted_diameter(lesion.node, confirmed.longest_mm, confirmed.short_axis_mm)
    if confirmed.kind == DISAPPEARED:
        return 0.0
    if confirmed.kind == TOO_SMALL:
        return TOO_SMALL_MM
    # A confirmed state alone measures nothing but what is gone.
    return 0.0 if confirmed.kind != NOT_EVALUABLE and reading.state == GONE else None


def diameters_of(reading: Reading) -> tuple[float | None, float | None]:
    """(longest diameter, short axis) in mm: confirmed where they are, else suggested."""
    confirmed = reading.confirmed
    if confirmed is None or confirmed.kind not in (MEASURED, DISAPPEARED, TOO_SMALL):
        return reading.longest_mm, reading.short_axis_mm
    if confirmed.kind == DISAPPEARED:
        return 0.0, 0.0
    if confirmed.kind == TOO_SMALL:
        return TOO_SMALL_MM, TOO_SMALL_MM
    longest, short = confirmed.longest_mm, confirmed.short_axis_mm
    return (reading.longest_mm if longest is None else longest), (reading.short_axis_mm if short is None else short)


def shown_mm(lesion: CourseLesion, reading: Reading | None) -> float | None:
    """The diameter in mm that a table shows: the confirmed one, else the suggested one that would count."""
    if reading is None:
        return None
    value = confirmed_mm(lesion, reading)
    if value is not None or (reading.confirmed is not None and reading.confirmed.kind == NOT_EVALUABLE):
        return value
    return counted_diameter(lesion.node, reading.longest_mm, reading.short_axis_mm)


def changes_of(course: Course, lesion: CourseLesion) -> list[tuple[float | None, float | None]]:
    """Per visit the shown diameter's change in percent: since the first, since the smallest earlier one; or None."""
    changes: list[tuple[float | None, float | None]] = []
    earlier: list[float] = []
    for visit in course.visits:
        value = shown_mm(lesion, lesion.readings.get(visit.name))
        first, least = (earlier[0], min(earlier)) if earlier else (None, None)
        changes.append((percent_change(value, first), percent_change(value, least)))
        if value is not None:
            earlier.append(value)
    return changes


def percent_change(value: float | None, reference: float | None) -> float | None:
    """Change in percent; None where either is unknown or the reference is 0."""
    return None if value is None or not reference else 100.0 * (value - reference) / reference


def counted_at(course: Course, visit: Visit) -> dict[str, float | None]:
    """What every lesion of the course counts at a visit in mm; a merged mass once, by its longest diameter unless all
    of it are nodes."""
    lesions = {lesion.name: lesion for lesion in course.lesions}
    counted = {name: confirmed_mm(lesion, lesion.readings.get(visit.name)) for name, lesion in lesions.items()}
    groups: list[list[str]] = []
    for name, lesion in lesions.items():
        reading = lesion.readings.get(visit.name)
        if reading is None or reading.state != MERGED or counted[name] is None:
            continue
        group = [name, *(other for other in reading.merged_with if other in lesions and other != name)]
        confirmed = reading.confirmed
        if confirmed is not None and confirmed.kind == MEASURED and not all(lesions[other].node for other in group):
            counted[name] = confirmed.longest_mm if confirmed.longest_mm is not None else counted[name]
        if not any(name in known for known in groups):
            groups.append(group)
    return counted_of_merged(counted, groups)


def _volume(targets: list[CourseLesion], visit: Visit) -> float | None:
    """ml of all targets together; gone ones are 0, and of merged ones the first holds the whole's."""
    total = 0.0
    for lesion in targets:
        reading = lesion.readings.get(visit.name)
        if reading is None:
            return None
        if confirmed_mm(lesion, reading) == 0 or (reading.state == MERGED and reading.volume_ml is None):
            continue
        if reading.volume_ml is None:
            return None
        total += reading.volume_ml
    return total if targets else None


def _is_there(reading: Reading | None) -> bool | None:
    """Whether what was confirmed says that a lesion is there; None where it does not say."""
    if reading is None or reading.confirmed is None or reading.confirmed.kind == NOT_EVALUABLE:
        return None
    if reading.confirmed.kind in (MEASURED, TOO_SMALL):
        return reading.confirmed.longest_mm != 0 or reading.confirmed.short_axis_mm not in (0, None)
    if reading.confirmed.kind == DISAPPEARED or reading.state == GONE:
        return False
    return None if reading.state in (NOT_FOUND, OUTSIDE) else True


def _non_targets(lesions: list[CourseLesion], visit: Visit) -> str:
    words = {True: "present", False: "gone", None: "not evaluable"}
    readings = {lesion.name: lesion.readings.get(visit.name) for lesion in lesions}
    axes = {lesion.name: confirmed_mm(lesion, readings[lesion.name]) for lesion in lesions if lesion.node}
    judged = bool(visit.extra.get(JUDGEMENT, {}).get("non_targets_progress"))
    states = {name: words[_is_there(reading)] for name, reading in readings.items()}
    return non_target_category(states, progress=judged, nodes_mm=axes)


def _new_lesions(course: Course) -> list[NewLesions]:
    """Per visit the new lesions there. One that was confirmed stays until somebody confirms that it is gone."""
    lesions = [lesion for lesion in course.lesions if lesion.role == NEW_LESION]
    firsts = {
        lesion.name: next((visit for visit in course.visits if _is_there(lesion.readings.get(visit.name))), None)
        for lesion in lesions
    }
    begun = [candidate(lesion, visit) for lesion in lesions if (visit := firsts[lesion.name]) is not None]
    followed = {entry.name for entry in propose_targets(begun) if entry.role == TARGET}
    there: set[str] = set()
    found = []
    for visit in course.visits:
        measured, judged = {}, visit.extra.get(JUDGEMENT, {})
        for lesion in lesions:
            reading = lesion.readings.get(visit.name)
            present = _is_there(reading)
            if present is not None:
                there = there | {lesion.name} if present else there - {lesion.name}
            value = confirmed_mm(lesion, reading)
            if present and value is not None and lesion.name in followed:
                measured[lesion.name] = value
        others = there - set(measured) | ({UNLISTED} if judged.get("new_lesion") else set())
        grew = bool(judged.get("new_lesions_grew"))
        found.append(NewLesions(measured, frozenset(others), grew, bool(judged.get("non_targets_grew"))))
    return found


def _open_ends(course: Course) -> list[str]:
    """Lesions that do not count, and what is missing."""
    said = []
    unclassified = [lesion.name for lesion in course.lesions if lesion.role == UNCLASSIFIED]
    if unclassified:
        said.append(f"{', '.join(unclassified)}: neither target nor non-target yet, so they count nowhere.")
    if course.visits:
        first = course.visits[0].name
        for lesion in course.lesions:
            if lesion.role == TARGET and not confirmed_mm(lesion, lesion.readings.get(first)):
                said.append(
                    f"{lesion.name} is a target without a confirmed diameter at {first}; it does not count yet."
                )
    return said
