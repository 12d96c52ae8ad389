"""The files that ``samconvex track`` writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..lesions.candidates import Candidate
    from ..lesions.course import Course
    from ..lesions.findings import TrackingResult
    from ..space.volume import Volume
    from .track_plan import Plan

TABLE_FILE, PAGE_FILES = "course.csv", ("report.png", "report.pdf")
COLUMNS = (
    "lesion",
    "follow_up",
    "state",
    "x",
    "y",
    "z",
    "score",
    "cycle_mm",
    "error90_mm",
    "loop_mm",
    "longest_mm",
    "short_axis_mm",
    "volume_ml",
    "longest_error_mm",
    "short_axis_error_mm",
    "volume_error_ml",
    "reason",
)
# File and value (None: all) of a contour by row of the lesion, visit (0: where it was marked) and kind.
Named = dict[tuple[int, int, str], tuple[str, int | None]]


def write_json(
    result: TrackingResult,
    path: Path,
    named: Named,
    organs: dict[str, str],
    warnings: list[str],
    proposed: list[list[Candidate]] | None,
) -> None:
    """``tracking.json``.

    Args:
        organs: proposed by lesion. proposed: candidates of new lesions of each follow-up, where they were sought.
    """
    from ..lesions.response import NOTICE
    from ..version import __version__

    document = {"version": __version__, "notice": NOTICE, **result.to_dict(), "warnings": warnings}
    for record in document["lesions"]:
        record.update({"organ": organs[record["name"]]} if record["name"] in organs else {})
    for (lesion, visit, kind), (name, _) in named.items():
        document["lesions"][lesion]["timepoints"][visit - 1][kind] = name
    if proposed is not None:
        document["new_lesion_candidates"] = [
            {"follow_up": number, **candidate.to_dict()} for number, found in enumerate(proposed) for candidate in found
        ]
    path.write_text(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(result: TrackingResult, path: Path) -> None:
    """One line per lesion and time point; follow_up 0 is the baseline."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer: csv.DictWriter = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
        writer.writeheader()
        for lesion in result.to_dict()["lesions"]:
            start = {"follow_up": -1, "state": "baseline", "position": lesion["point"], **_sizes(lesion)}
            for point in (start, *({**point, **_sizes(point)} for point in lesion["timepoints"])):
                place = dict(zip("xyz", point.get("position", ("", "", "")), strict=True))
                writer.writerow({**point, **place, "lesion": lesion["name"], "follow_up": point["follow_up"] + 1})


def write_each_contour(result: TrackingResult, folder: Path) -> Named:
    """Every contour on its own grid."""
    from ..io.images import write_volume

    named: Named = {}
    for row, lesion in enumerate(result.lesions):
        for finding in result.of(lesion.name):
            for kind, contour in (("carried", finding.carried), ("suggested", finding.suggested)):
                if contour is not None:
                    name = f"{kind}-{row + 1}-{finding.follow_up + 1}.mha"
                    write_volume(contour, folder / name)
                    named[row, finding.follow_up + 1, kind] = (name, None)
    return named


def _sizes(record: dict) -> dict:
    return record.get("measurement", {})


def write_contours(result: TrackingResult, plan: Plan, folder: Path, names: list[str]) -> Named:
    """The drawn contours of the baseline and the suggested ones of each follow-up, one label map an image.

    Label n is the n-th lesion; an image without contours has no file. In a course that is continued the baseline's
    contours stay where they are.
    """
    named: Named = {}
    masks: dict[int, dict[int, Volume]] = {}
    for row, lesion in enumerate(result.lesions):
        if plan.fresh and lesion.mask is not None:
            masks.setdefault(0, {})[row] = lesion.mask
        for finding in result.of(lesion.name):
            if finding.suggested is not None:
                masks.setdefault(finding.follow_up + 1, {})[row] = finding.suggested
    for visit, present in masks.items():
        image = plan.follow_ups[visit - 1] if visit else plan.marked[0][1]
        written = _write_labels(present, image, folder / names[visit])
        named |= {(row, visit, "suggested"): (names[visit], row + 1) for row in written}
    return named


def _write_labels(masks: dict[int, Volume], image: Volume, path: Path) -> list[int]:
    """Label row + 1 for every mask, on the image's grid; the rows that are seen there."""
    import SimpleITK as sitk
    import torch

    from ..io.images import write_volume
    from ..space.volume import Volume, resample

    labels = torch.zeros(image.grid.shape, dtype=torch.int16)
    for row, mask in masks.items():
        inside = resample(mask.with_tensor(mask.as_float()), image.grid, fill=0.0).tensor[0, 0] > 0.5
        labels[inside] = row + 1
    seen = [row for row in masks if bool((labels == row + 1).any())]
    if seen:
        write_volume(Volume(labels[None, None], image.grid, sitk.sitkInt16), path)
    return seen


def course_of(
    plan: Plan, result: TrackingResult, named: Named, organs: dict[str, str], folder: Path
) -> tuple[Course, list[str]]:
    """The course with the visits of this run added, those of the same image read again; and what to say.

    Args:
        folder: where the files will lie.
    """
    import copy

    from ..lesions.course import CourseLesion
    from ..lesions.course_changes import add_lesion, take_visit
    from ..lesions.recording import marked_readings, readings_of

    course = copy.deepcopy(plan.course)
    names = [lesion.name for lesion in result.lesions]

    def contours(visit: int) -> dict[str, tuple[str, int | None]]:
        return {
            names[row]: (str(folder.absolute() / name), value)
            for (row, number, kind), (name, value) in named.items()
            if number == visit and kind == "suggested"
        }

    notes: list[str] = []
    if plan.fresh:
        for name, reading in marked_readings(result, contours(0)).items():
            add_lesion(
                course, CourseLesion(name, organ=organs.get(name, ""), readings={course.visits[0].name: reading})
            )
    for number, (visit, patient) in enumerate(zip(plan.visits, plan.patients, strict=True)):
        readings = readings_of(result, number, contours(number + 1))
        notes += take_visit(course, visit, readings, patient_id=patient, source=visit.image or visit.name)
    return course, notes


def write_course(course: Course, folder: Path, path: Path) -> None:
    """``course.json`` for ``folder``; ``path`` is in its staging neighbor."""
    from ..lesions.course import course_to_dict

    text = json.dumps(course_to_dict(course, folder.absolute()), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_page_and_table(course: Course, plan: Plan, folder: Path, staging: Path, delimiter: str) -> None:
    """``report.png``, ``report.pdf`` and ``course.csv``; contours that will lie in ``folder`` are still in staging."""
    import copy

    from ..lesions.course_table import write_course_csv
    from ..lesions.report_page import write_report_page

    shown = copy.deepcopy(course)
    for lesion in shown.lesions:
        for reading in lesion.readings.values():
            if reading.contour is not None and (staging / Path(reading.contour).name).is_file():
                if Path(reading.contour).parent == folder.absolute():
                    reading.contour = str(staging / Path(reading.contour).name)
    images = {visit.name: image for visit, image, _ in plan.marked}
    images |= {visit.name: image for visit, image in zip(plan.visits, plan.follow_ups, strict=True)}
    write_report_page(shown, staging, images)
    write_course_csv(course, staging / TABLE_FILE, delimiter)
