"""A course begun, continued, put in order and read again; what a person confirmed is never lost on the way."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import InputError
from .course import Course, CourseLesion, Reading, Visit


def iso_date(text: str, what: str) -> str:
    """A day as ISO text from 2026-11-27 or 20261127 (DICOM).

    Raises:
        InputError: no such day; ``what`` names the field.
    """
    for form in ("%Y-%m-%d", "%Y%m%d"):
        try:
            return datetime.datetime.strptime(text.strip(), form).date().isoformat()
        except ValueError:
            continue
    raise InputError(f"{what} is '{text}', which is no day; write it as 2026-11-27.")


def new_course(
    patient: str, patient_id: str, baseline: Visit, lesions: Sequence[CourseLesion] = (), *, source: str = ""
) -> Course:
    """A course of one visit.

    Args:
        lesions: with their readings at the baseline (or none yet). source: as in :func:`add_visit`.
    """
    course = Course(patient, patient_id)
    add_visit(course, baseline, source=source)
    for lesion in lesions:
        add_lesion(course, lesion)
    return course


def add_lesion(course: Course, lesion: CourseLesion) -> CourseLesion:
    """Add a lesion. InputError: its name is taken, or it was read at a visit that the course has not."""
    if any(lesion.name == other.name for other in course.lesions):
        raise InputError(f"The course already has a lesion called {lesion.name}; give another name.")
    for visit in lesion.readings:
        course.visit(visit)
    course.lesions.append(lesion)
    return lesion


def add_visit(
    course: Course,
    visit: Visit,
    readings: Mapping[str, Reading] | None = None,
    *,
    patient_id: str = "",
    source: str = "",
) -> list[str]:
    """Add a time point: by its date where dates tell, else at the end. Nothing that was there changes.

    Args:
        readings: of the course's lesions there, by name.
        patient_id: DICOM PatientID of the image, "" unknown. source: name of the image, for messages.

    Returns:
        Sentences on what could not be checked.

    Raises:
        InputError: another patient's image, a name or an image that the course already has, a lesion it has not, or a
            date before the baseline's.
    """
    notes = check_patient(course, patient_id, source or visit.name)
    _check_free(course.visits, visit, source)
    lesions = {name: course.lesion(name) for name in readings or {}}
    course.visits = _ordered([*course.visits, visit])
    for name, lesion in lesions.items():
        lesion.readings[visit.name] = (readings or {})[name]
    return notes


def replace_visit(
    course: Course, name: str, visit: Visit, readings: Mapping[str, Reading], *, patient_id: str = "", source: str = ""
) -> list[str]:
    """Read one time point again: its facts and proposals are replaced, every other visit stays as it is.

    What a person confirmed at this visit stays where the image is the same (by checksum) or either is unknown, else
    it is taken back and said.

    Returns:
        Sentences on confirmations that were taken back and on what could not be checked.

    Raises:
        InputError: as :func:`add_visit`.
    """
    before = course.visit(name)
    # Judgements and decisions on candidates are a person's too.
    visit.extra = {**before.extra, **visit.extra}
    notes = check_patient(course, patient_id, source or visit.name)
    _check_free([other for other in course.visits if other is not before], visit, source)
    for lesion_name in readings:
        course.lesion(lesion_name)
    course.visits = _ordered([visit if other is before else other for other in course.visits])
    same = not (before.sha256 and visit.sha256) or before.sha256 == visit.sha256
    for lesion in course.lesions:
        old, new = lesion.readings.pop(name, None), readings.get(lesion.name)
        if old is not None and old.confirmed is not None:
            if same:
                new = old if new is None else replace(new, confirmed=old.confirmed, state=old.state)
            else:
                notes.append(
                    f"{visit.name} has another image than before; what was confirmed of {lesion.name} is open."
                )
        if new is not None:
            lesion.readings[visit.name] = new
    return notes


def take_visit(
    course: Course, visit: Visit, readings: Mapping[str, Reading], *, patient_id: str = "", source: str = ""
) -> list[str]:
    """:func:`replace_visit` where the course has a visit of that name, else :func:`add_visit`."""
    if any(visit.name == other.name for other in course.visits):
        return replace_visit(course, visit.name, visit, readings, patient_id=patient_id, source=source)
    return add_visit(course, visit, readings, patient_id=patient_id, source=source)


def set_date(course: Course, name: str, date: str | None) -> None:
    """Set or forget a visit's date; visits take their order from the dates where all are known.

    Raises:
        InputError: no day, or a follow-up would come before the baseline.
    """
    visit = course.visit(name)
    changed = replace(visit, date=None if date is None else iso_date(date, f"The date of {name}"))
    course.visits = _ordered([changed if other is visit else other for other in course.visits])


def move_visit(course: Course, name: str, position: int) -> None:
    """Put a follow-up at a place in the order (1 is the first after the baseline), where dates do not say otherwise.

    Raises:
        InputError: the baseline, a place that there is not, or an order that the dates contradict.
    """
    visit = course.visit(name)
    if visit is course.visits[0] or not 1 <= position < len(course.visits):
        raise InputError(f"{name} cannot take place {position}; the baseline stays first, follow-ups come after it.")
    visits = [other for other in course.visits if other is not visit]
    visits.insert(position, visit)
    check_order([(entry.name, entry.date) for entry in visits])
    course.visits = visits


def rename_visit(course: Course, name: str, new_name: str) -> None:
    """Give a visit another name. InputError: it is taken or empty."""
    visit = course.visit(name)
    if not new_name or any(other.name == new_name for other in course.visits if other is not visit):
        raise InputError(f"'{new_name}' is empty or the name of another visit; give another name.")
    visit.name = new_name
    for lesion in course.lesions:
        lesion.readings = {new_name if key == name else key: reading for key, reading in lesion.readings.items()}


def check_patient(course: Course, patient_id: str, source: str) -> list[str]:
    """A sentence where it is not known whether an image is of the course's patient.

    Raises:
        InputError: it is another patient's.
    """
    if patient_id and course.patient_id and patient_id != course.patient_id:
        raise InputError(
            f"{source} belongs to patient {patient_id}, the course to {course.patient_id}; give images of one patient, "
            "or begin a course of its own."
        )
    if course.patient_id and not patient_id:
        return [f"{source} does not say whose it is; check that it is of patient {course.patient_id}."]
    return []


def check_order(dated: Sequence[tuple[str, str | None]]) -> None:
    """Refuse visits (name, ISO date or None) whose order their dates contradict.

    Raises:
        InputError: names the two visits.
    """
    known = [(name, date) for name, date in dated if date is not None]
    for (name, date), (later, later_date) in zip(known, known[1:], strict=False):
        if later_date < date:
            raise InputError(
                f"{later} is dated {later_date}, before {name} ({date}), but comes after it; correct the dates or give "
                "the images oldest first."
            )


def _check_free(others: Sequence[Visit], visit: Visit, source: str) -> None:
    if any(visit.name == other.name for other in others):
        raise InputError(f"The course already has a visit called {visit.name}; give another name, or run it again.")
    twin = next((other for other in others if visit.sha256 and visit.sha256 == other.sha256), None)
    if twin is not None:
        raise InputError(f"{source or visit.name} is the image of the visit {twin.name}; give another image.")


def _ordered(visits: list[Visit]) -> list[Visit]:
    """The baseline first, then the follow-ups by date where every one is dated, else as they are."""
    if len(visits) < 2:
        return visits
    first, later = visits[0], visits[1:]
    early = next((v for v in later if first.date is not None and v.date is not None and v.date < first.date), None)
    if early is not None:
        raise InputError(
            f"{early.name} is dated {early.date}, before the baseline {first.name} ({first.date}); correct the date or "
            "begin a course with the earlier image as its baseline."
        )
    if all(visit.date is not None for visit in later):
        later = sorted(later, key=lambda visit: visit.date or "")
    else:
        check_order([(visit.name, visit.date) for visit in later])
    return [first, *later]


def baseline_reading(course: Course, lesion: CourseLesion) -> Reading | None:
    """The reading that a lesion is compared with: of the visit where it was marked; None without one."""
    for visit in course.visits:
        reading = lesion.readings.get(visit.name)
        if reading is not None:
            return reading
    return None
