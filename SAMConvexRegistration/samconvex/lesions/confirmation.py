"""What a person decides about a course: measurements confirmed or taken back, roles, organs, judgements.

Nothing is erased on the way: both diameters stay whichever counts, and the program's proposals stay beside what was
confirmed. How visits are added and ordered is in course_changes.py.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

from ..errors import InputError
from .assessment import JUDGEMENT, JUDGEMENTS, diameters_of, propose_roles
from .course import (
    DISAPPEARED,
    GONE,
    KINDS,
    MEASURED,
    MERGED,
    NEW,
    NEW_LESION,
    NON_TARGET,
    NOT_EVALUABLE,
    NOT_FOUND,
    OUTSIDE,
    ROLES,
    STATES,
    TARGET,
    TOO_SMALL,
    UNCLASSIFIED,
    Confirmation,
    Course,
    CourseLesion,
    Reading,
)
from .course_changes import add_lesion
from .targets import TOO_SMALL_MM, counted_diameter

# Longer than any lesion of one organ: most likely a comma that was lost.
PLAUSIBLE_MM = 300.0
NOT_LOOKED_FOR = "A new lesion is not looked for by itself here; mark it, or say that it is gone."
# A typed diameter that differs more than this from the suggested one is said.
SURPRISING_FACTOR = 3.0


def confirm(
    course: Course,
    lesion: str,
    visit: str,
    kind: str = MEASURED,
    *,
    longest_mm: float | None = None,
    short_axis_mm: float | None = None,
    by: str = "",
    when: datetime.datetime | None = None,
) -> list[str]:
    """Confirm a lesion at a visit; an earlier confirmation there is replaced.

    A lesion without a role gets the proposed one when its baseline is confirmed.

    Args:
        kind: one of :data:`KINDS`. longest_mm, short_axis_mm: for "measured", mm; one that is not given stays as it
            was confirmed, else as it is suggested.
        by: name of the reader. when: default now.

    Returns:
        Sentences on what is odd about the value.

    Raises:
        InputError: no such lesion or visit, no diameter to confirm, or one that cannot be.
    """
    entry, reading = _reading(course, lesion, visit)
    where = f"{lesion} at {visit}"
    if kind not in KINDS:
        raise InputError(f"'{kind}' cannot be confirmed of {where}; use one of {', '.join(KINDS)}.")
    said: list[str] = []
    longest: float | None = None
    short: float | None = None
    if kind == MEASURED:
        longest, short, said = _measured(entry, reading, longest_mm, short_axis_mm, where)
    elif kind == DISAPPEARED:
        longest = short = 0.0
    elif kind == TOO_SMALL:
        longest = short = TOO_SMALL_MM
    moment = (when or datetime.datetime.now()).isoformat(timespec="seconds")
    reading.confirmed = Confirmation(kind, longest, short, by, moment)
    if entry.role == UNCLASSIFIED and course.visits[0].name == visit:
        _give_role(course, entry)
    return said


def withdraw(course: Course, lesion: str, visit: str) -> None:
    """Take a confirmation back. InputError: no such lesion or visit."""
    _reading(course, lesion, visit)[1].confirmed = None


def set_node(course: Course, lesion: str, node: bool) -> None:
    """Let a lesion count by its short axis (a lymph node) or its longest diameter; both diameters stay."""
    course.lesion(lesion).node = bool(node)


def set_organ(course: Course, lesion: str, organ: str) -> None:
    """Say where a lesion lies."""
    course.lesion(lesion).organ = organ.strip()


def set_role(course: Course, lesion: str, role: str) -> None:
    """Make a lesion a target, non-target or new one, or none of them.

    Raises:
        InputError: no role, or a new lesion that the baseline shows.
    """
    entry = course.lesion(lesion)
    if role not in ROLES:
        raise InputError(f"'{role}' is no role of {lesion}; use one of {', '.join(ROLES)}.")
    if role == NEW_LESION and course.visits and course.visits[0].name in entry.readings:
        raise InputError(f"{lesion} is there at the baseline; a new lesion is one that only a follow-up shows.")
    entry.role = role


def set_state(course: Course, lesions: Sequence[str], visit: str, state: str, *, by: str = "") -> list[str]:
    """Say what lesions are at a visit where the program proposed something else; ``proposed_state`` keeps that.

    "gone" is confirmed as having disappeared, "not found" and "outside" as not evaluable.

    Args:
        lesions: those that have become one mass together, for "merged"; else each by itself.

    Raises:
        InputError: no such lesion, visit or state, or "merged" of one lesion alone.
    """
    if state not in STATES:
        raise InputError(f"'{state}' is no state of a lesion; use one of {', '.join(STATES)}.")
    if state == MERGED and len(lesions) < 2:
        raise InputError("A lesion does not merge alone; choose all lesions of the mass at this visit together.")
    readings = {name: _reading(course, name, visit)[1] for name in lesions}
    kind = {GONE: DISAPPEARED, NOT_FOUND: NOT_EVALUABLE, OUTSIDE: NOT_EVALUABLE}.get(state)
    said: list[str] = []
    for name, reading in readings.items():
        reading.state = state
        for partner in reading.merged_with:
            other = course.lesion(partner).readings.get(visit)
            if other is not None:
                other.merged_with = [entry for entry in other.merged_with if entry != name]
        reading.merged_with = [other for other in lesions if other != name] if state == MERGED else []
        if kind is not None:
            said += confirm(course, name, visit, kind, by=by)
    return said


def add_new_lesion(course: Course, name: str, visit: str, position: Sequence[float] | None) -> CourseLesion:
    """Add a lesion that a follow-up shows and the baseline does not; it is open until it is confirmed.

    Args:
        position: (3,) LPS mm of the visit's image.

    Raises:
        InputError: a name that is empty or taken, no such visit, or the baseline.
    """
    entry = course.visit(visit)
    if not name.strip():
        raise InputError("The new lesion has no name; give one.")
    if entry is course.visits[0]:
        raise InputError(f"{visit} is the baseline; a new lesion is one that only a follow-up shows.")
    place = None if position is None else [float(value) for value in position]
    lesion = add_lesion(course, CourseLesion(name.strip(), NEW_LESION, readings={visit: Reading(NEW, position=place)}))
    open_new_lesions(course)
    return lesion


def open_new_lesions(course: Course) -> None:
    """Give new lesions an open reading at every later visit that has none, so that somebody looks there."""
    for lesion in course.lesions:
        if lesion.role != NEW_LESION:
            continue
        seen = False
        for visit in course.visits:
            if visit.name in lesion.readings:
                seen = True
            elif seen:
                lesion.readings[visit.name] = Reading(NOT_FOUND, reason=NOT_LOOKED_FOR)


def set_judgement(course: Course, visit: str, name: str, value: bool) -> None:
    """Keep what a person judged of a visit as a whole, one of :data:`JUDGEMENTS`.

    Raises:
        InputError: no such judgement or visit, or one about the baseline, which has nothing to be compared with.
    """
    entry = course.visit(visit)
    if name not in JUDGEMENTS:
        raise InputError(f"'{name}' is no judgement of a visit; use one of {', '.join(JUDGEMENTS)}.")
    if value and entry is course.visits[0]:
        raise InputError(f"{visit} is the baseline, which nothing can be new or grown at; choose a follow-up.")
    judged = {**entry.extra.get(JUDGEMENT, {}), name: bool(value)}
    entry.extra[JUDGEMENT] = {key: held for key, held in judged.items() if held}


def apply_proposed_roles(course: Course) -> list[str]:
    """Give every lesion of the baseline its proposed role; returns one sentence per lesion."""
    said = []
    for proposal in propose_roles(course):
        course.lesion(proposal.name).role = _role_of(proposal.role)
        said.append(f"{proposal.name}: {proposal.role}. {proposal.reason}")
    return said


def _give_role(course: Course, lesion: CourseLesion) -> None:
    """The proposed role, where the targets that were chosen leave room."""
    proposal = next((entry for entry in propose_roles(course) if entry.name == lesion.name), None)
    if proposal is not None:
        lesion.role = _role_of(proposal.role)


def _role_of(proposed: str) -> str:
    # A normal lymph node is no lesion: it stays out of both.
    return {TARGET: TARGET, NON_TARGET: NON_TARGET}.get(proposed, UNCLASSIFIED)


def _reading(course: Course, lesion: str, visit: str) -> tuple[CourseLesion, Reading]:
    entry = course.lesion(lesion)
    course.visit(visit)
    if visit not in entry.readings:
        raise InputError(f"{lesion} was not read at {visit}; run that time point first.")
    return entry, entry.readings[visit]


def _measured(
    lesion: CourseLesion, reading: Reading, longest: float | None, short: float | None, where: str
) -> tuple[float | None, float | None, list[str]]:
    """Both diameters to keep, and what is odd about them."""
    for value, what in ((longest, "longest diameter"), (short, "short axis")):
        if value is not None:
            _check_length(value, f"The {what} of {where}")
    before = diameters_of(reading)
    if reading.confirmed is not None and reading.confirmed.kind != MEASURED:
        before = reading.longest_mm, reading.short_axis_mm
    given = longest, short
    longest = before[0] if longest is None else longest
    short = before[1] if short is None else short
    if longest is not None and short is not None and short > longest + 0.05:
        if None not in given:
            raise InputError(
                f"The short axis of {where} is {short:g} mm, more than its longest diameter of {longest:g} mm; "
                "correct one."
            )
        # Only one was given: the other one belongs to another measurement.
        longest, short = (given[0], None) if given[0] is not None else (None, given[1])
    if counted_diameter(lesion.node, longest, short) is None:
        which = "short axis" if lesion.node else "longest diameter"
        raise InputError(f"{where} has no {which} to confirm; draw it in the view, or type its millimeters.")
    said = []
    for value, proposed, what in (
        (given[0], reading.longest_mm, "longest"),
        (given[1], reading.short_axis_mm, "short"),
    ):
        if value and proposed and not 1 / SURPRISING_FACTOR <= value / proposed <= SURPRISING_FACTOR:
            said.append(f"{where}: {value:g} mm was kept, but {proposed:.1f} mm was suggested ({what}); check it.")
    return longest, short, said


def _check_length(value: float, what: str) -> None:
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{what} is {value:g}, which is no length; give millimeters, 0 or more.")
    if value > PLAUSIBLE_MM:
        raise InputError(
            f"{what} is {value:g} mm, more than any lesion ({PLAUSIBLE_MM:g} mm); give {value / 10:g} or "
            f"{value / 100:g} mm if that was meant."
        )
