"""What ``samconvex track`` does when asked: new lesions proposed, the course as a DICOM structured report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..lesions.candidates import Candidate
    from ..lesions.course import Course
    from ..lesions.findings import TrackingResult
    from ..progress import Progress
    from .track_plan import Plan

# Around a lesion without a size nothing is proposed within this.
_UNMEASURED_MM = 8.0


def check_extras(plan: Plan, args: argparse.Namespace) -> None:
    """Refuse before the work what could not be done after it.

    Raises:
        InputError: no CT for --new-lesions; for --dicom-sr images that are no DICOM series or of several patients, or
            highdicom is not installed.
    """
    if args.new_lesions:
        from ..space.intensity import check_ct

        for image in (plan.marked[0][1], *plan.follow_ups):
            check_ct(image)
    if args.dicom_sr is not None:
        from ..lesions.dicom_report import check_sources

        known = {visit.name: visit for visit in (*plan.course.visits, *plan.visits)}
        check_sources(list(known.values()), plan.course.patient_id)


def proposals(
    plan: Plan, result: TrackingResult, args: argparse.Namespace, device: str, progress: Progress
) -> list[list[Candidate]]:
    """Candidates of new lesions of each follow-up, kept with its visit; what is tracked there is not proposed."""
    from ..lesions.candidates import new_lesion_candidates
    from ..lesions.proposals import keep_candidates

    first, baseline, _ = plan.marked[0]
    earlier = {visit.name: visit for visit in plan.course.visits}
    every = []
    for number, (visit, follow_up) in enumerate(zip(plan.visits, plan.follow_ups, strict=True)):
        known = []
        for finding in result.findings:
            if finding.follow_up == number and np.isfinite(finding.position).all():
                size = finding.measurement
                known.append((finding.position, _UNMEASURED_MM if size is None else 0.6 * size.longest_mm))
        found = new_lesion_candidates(
            baseline, follow_up, known=known, device=device, weights=args.weights, progress=progress
        )
        keep_candidates(visit, found, earlier.get(visit.name))
        every.append(found)
    return every


def said_of(path: str, found: list[Candidate]) -> list[str]:
    """Lines for the terminal."""
    lines = [f"{path}: {len(found)} candidate{'s' * (len(found) != 1)} of new lesions"]
    for candidate in found:
        place = ", ".join(f"{value:.1f}" for value in candidate.position)
        lines.append(f"  score {candidate.score:.2f} at ({place}): {candidate.reason}")
    return lines


def write_report(course: Course, target: str, folder: Path, staging: Path) -> None:
    """The structured report; within the output folder it appears with the other files."""
    from ..io.outputs import output_file
    from ..lesions.dicom_report import write_sr

    path = Path(target)
    if path.absolute().parent == folder.absolute():
        write_sr(course, staging / path.name)
        return
    # In a folder that may not be there yet.
    with output_file(path) as temporary:
        write_sr(course, temporary)
