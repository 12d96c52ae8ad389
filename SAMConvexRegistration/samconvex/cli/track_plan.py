"""What ``samconvex track`` tracks: images, lesions, dates and patient read and checked before any work."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..io.images import check_format, read_volume
from ..lesions.course import Course, Visit, read_course
from ..lesions.course_changes import check_order, check_patient, iso_date, new_course, take_visit
from ..lesions.files import lesion_notes, read_lesions
from ..lesions.recording import lesion_of, marked_lesions, visit_of
from ..lesions.tracking import is_inside, outside_note
from .console import say_notes

if TYPE_CHECKING:
    from ..lesions.lesion import Lesion
    from ..progress import Progress
    from ..space.volume import Volume
    from ..weights.models import SamModel

BASELINE_NAME = "baseline"


@dataclass
class Plan:
    """What is tracked, read and checked before any work.

    Attributes:
        course: before this run, or with its baseline alone. marked: per visit that lesions were marked in, its image
            and lesions. follow_ups, visits: the later images. patients: their PatientIDs. notes: for the user.
    """

    course: Course
    marked: list[tuple[Visit, Volume, list[Lesion]]]
    follow_ups: list[Volume] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fresh: bool = True


def planned(
    args: argparse.Namespace, paths: Sequence[str], contours: Sequence[str], progress: Progress, way_out: str | None
) -> Plan:
    """Read and check everything.

    Args:
        paths: the follow-ups. contours: names of their label maps. way_out: proposed where a label map cannot hold a
            follow-up's grid; None where none is written.

    Raises:
        InputError: see the sentences.
    """
    dates = _dates(args, len(paths))
    plan = _begun(args, dates[0]) if args.course is None else _continued(args)
    if args.patient is not None:
        plan.course.patient = args.patient
    for number, path in enumerate(paths):
        progress("read", (number + 1) / (len(paths) + 1))
        image = read_volume(path)
        if way_out is not None:
            check_format(contours[number], image.grid, way_out=way_out.format(path=path))
        visit, facts = visit_of("", path, image, dates[number + 1])
        plan.follow_ups.append(image)
        plan.notes += visit.notes
        plan.notes += check_patient(plan.course, facts.patient_id, path)
        plan.course.patient_id = plan.course.patient_id or facts.patient_id
        visit.name = _name_of(plan, visit, path)
        plan.visits.append(visit)
        plan.patients.append(facts.patient_id)
    _check_dates(plan, paths)
    return plan


def said_of_anatomy(plan: Plan, model: SamModel, device: str, progress: Progress) -> list[str]:
    """Say at once where a follow-up shows another part of the body; tracking asks for the same embeddings again."""
    from ..anatomy.cache import embed_cached
    from ..anatomy.level import Anatomy, anatomy_of, warnings_about
    from ..anatomy.sides import with_sides

    def shown(image: Volume) -> Anatomy:
        return with_sides(anatomy_of(embed_cached(image, model, device=device, progress=progress)), image)

    every: list[str] = []
    for visit, baseline, _ in plan.marked:
        before = shown(baseline)
        for follow_up in plan.follow_ups:
            said = warnings_about(before, shown(follow_up), (f"the {visit.name}", follow_up.name))
            say_notes(said)
            every += said
    return every


def organs_of(plan: Plan, model: SamModel, device: str) -> dict[str, str]:
    """The organ that each lesion of a course that begins seems to lie in; a person corrects it."""
    from ..anatomy.cache import embed_cached
    from ..lesions.sites import propose_organs

    found: dict[str, str] = {}
    for _, image, lesions in plan.marked if plan.fresh else ():
        sites = propose_organs(lesions, image, embed_cached(image, model, device=device))
        found |= {name: site.organ for name, site in sites.items() if site.organ}
    return found


def _begun(args: argparse.Namespace, date: str | None) -> Plan:
    """A course of BASELINE and LESIONS."""
    image = read_volume(args.files[0])
    lesions = read_lesions(args.files[1], split_parts=args.split_parts)
    visit, facts = visit_of(BASELINE_NAME, args.files[0], image, date)
    course = new_course(args.patient or "", facts.patient_id, visit)
    outside = [outside_note(lesion, image) for lesion in lesions if not is_inside(lesion, image)]
    if len(outside) == len(lesions):
        raise InputError(outside[0])
    notes = [*visit.notes, *lesion_notes(lesions, image), *outside]
    return Plan(course, [(visit, image, lesions)], notes=notes)


def _continued(args: argparse.Namespace) -> Plan:
    """The course that --course names, with the images that its lesions were marked in."""
    if args.split_parts:
        raise InputError("--split-parts is for LESIONS; the lesions of a course that is continued are known.")
    course = read_course(args.course)
    if args.patient is not None and course.patient and args.patient != course.patient:
        raise InputError(f"{args.course} is the course of {course.patient}, not of {args.patient}; give another one.")
    marked: list[tuple[Visit, Volume, list[Lesion]]] = []
    for name, lesions in marked_lesions(course).items():
        visit = course.visit(name)
        if visit.image is None or not Path(visit.image).exists():
            where = visit.image or "without a file"
            raise InputError(f"{args.course}: the image of {name} ({where}) is not there; put it back where it was.")
        marked.append((visit, read_volume(visit.image), [lesion_of(lesion, visit) for lesion in lesions]))
    if not marked:
        raise InputError(f"{args.course} holds no lesion; begin with BASELINE LESIONS FOLLOWUP.")
    return Plan(course, marked, fresh=False)


def _name_of(plan: Plan, visit: Visit, path: str) -> str:
    """The visit of the same image, which is read again, or a new name."""
    same = next((other for other in [*plan.course.visits, *plan.visits] if other.sha256 == visit.sha256), None)
    if same is not None and not plan.fresh:
        if same in plan.visits or any(same.name == marked.name for marked, _, _ in plan.marked):
            raise InputError(f"{path} is the image of the visit {same.name} too; give each image once.")
        visit.date = visit.date or same.date
        return same.name
    if same is not None:
        plan.notes.append(f"{path} is the same image as that of the {same.name}; check that it is meant.")
        visit.sha256 = ""
    taken = {other.name for other in [*plan.course.visits, *plan.visits]}
    number = len(plan.course.visits) + len(plan.visits)
    while f"follow-up {number}" in taken:
        number += 1
    return f"follow-up {number}"


def _dates(args: argparse.Namespace, count: int) -> list[str | None]:
    """Days of the baseline and of each follow-up, None where not typed.

    Raises:
        InputError: no day, or another number of them.
    """
    days: list[str | None] = [iso_date(day, "A day of --dates") for day in args.dates]
    if len(days) == count + 1 and args.course is None:
        return days
    if len(days) in (0, count):
        return [None, *(days or [None] * count)]
    more = "" if args.course is not None else f", or {count + 1} with the baseline's first"
    raise InputError(f"--dates holds {len(days)} days for {count} follow-ups; give {count}{more}.")


def _check_dates(plan: Plan, paths: Sequence[str]) -> None:
    """Refuse follow-ups that are not given oldest first, or that the course could not take in the end."""
    given = [(path, visit.date) for path, visit in zip(paths, plan.visits, strict=True)]
    check_order(given)
    trial = copy.deepcopy(plan.course)
    for visit, path in zip(plan.visits, paths, strict=True):
        take_visit(trial, visit, {}, source=path)
