"""Candidates of new lesions kept with their visit until a person accepts or rejects them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .course import NEW, NEW_LESION, Course, CourseLesion, Reading, Visit
from .course_changes import add_lesion

if TYPE_CHECKING:
    # Slicer reads this file without torch.
    from .candidates import Candidate

# Entry of a visit's ``extra``: a list of candidates as to_dict() gives them, each with its "decision".
CANDIDATES = "new_lesion_candidates"
OPEN, ACCEPTED, REJECTED = "open", "accepted", "rejected"
# A candidate of another run that lies nearer than this is the same.
_SAME_MM = 5.0


def keep_candidates(visit: Visit, candidates: Sequence[Candidate], before: Visit | None = None) -> None:
    """Keep candidates with their visit, all open but those that were decided on in an earlier run (``before``)."""
    decided = [one for one in candidates_of(before or visit) if one["decision"] != OPEN]
    kept = []
    for candidate in candidates:
        record = {**candidate.to_dict(), "decision": OPEN}
        same = next((one for one in decided if _apart(one, record) < _SAME_MM), None)
        kept.append(record if same is None else {**record, "decision": same["decision"]})
    visit.extra[CANDIDATES] = kept


def candidates_of(visit: Visit) -> list[dict[str, Any]]:
    """The visit's candidates, the surest first, as :meth:`Candidate.to_dict` gives them, with their ``decision``."""
    found = visit.extra.get(CANDIDATES, [])
    return [one for one in found if isinstance(one, dict) and {"position", "decision"} <= set(one)]


def accept_candidate(course: Course, visit: str, number: int, name: str = "") -> CourseLesion:
    """Make a candidate (by its place in :func:`candidates_of`) a new lesion of the course, which nobody has confirmed.

    Args:
        name: of the lesion; default the next free "new n".

    Raises:
        InputError: no such visit or candidate, one at the baseline, or a name that is taken.
    """
    record = _candidate(course, visit, number)
    if course.visits[0].name == visit:
        raise InputError(f"{visit} is the baseline, at which no lesion is new; choose a follow-up.")
    taken = {lesion.name for lesion in course.lesions}
    free = next(word for row in range(1, len(taken) + 2) if (word := f"new {row}") not in taken)
    size = record.get("measurement", {})
    reading = Reading(
        NEW,
        NEW,
        position=[float(value) for value in record["position"]],
        score=record.get("score"),
        longest_mm=size.get("longest_mm"),
        short_axis_mm=size.get("short_axis_mm"),
        volume_ml=size.get("volume_ml"),
        longest_line=size.get("longest_points"),
        short_line=size.get("short_axis_points"),
        reason=record.get("reason", ""),
    )
    lesion = add_lesion(course, CourseLesion(name or free, NEW_LESION, readings={visit: reading}))
    record["decision"] = ACCEPTED
    return lesion


def reject_candidate(course: Course, visit: str, number: int) -> None:
    """Say that a candidate is no new lesion. InputError: no such visit or candidate."""
    _candidate(course, visit, number)["decision"] = REJECTED


def _candidate(course: Course, visit: str, number: int) -> dict[str, Any]:
    found = candidates_of(course.visit(visit))
    if not 0 <= number < len(found):
        raise InputError(f"{visit} has {len(found)} candidates of new lesions; there is no number {number + 1}.")
    return found[number]


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(np.linalg.norm(np.subtract(one["position"], other["position"])))
