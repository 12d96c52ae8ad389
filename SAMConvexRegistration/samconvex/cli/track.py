"""``samconvex track``: baseline lesions found and measured in follow-up images, a course of visits continued."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..io.outputs import check_output_file, check_output_folder, output_folder
from .console import ConsoleProgress, say_notes
from .track_output import PAGE_FILES, TABLE_FILE

if TYPE_CHECKING:
    from ..lesions.findings import TrackingResult
    from ..progress import Progress
    from ..weights.models import SamModel
    from .track_plan import Plan

COURSE_FILE = "course.json"
BASELINE_CONTOURS = "contours_0.nii.gz"

EXPLANATION = """
Find the lesions of BASELINE in each FOLLOWUP, in the order given. LESIONS is a label map (one lesion per label, or per
connected part where there is one label or with --split-parts), points (.csv, .fcsv), Slicer markups (.mrk.json:
points, lines, ROIs) or a .json list of {"name": ..., and "point", "box", "line" or "mask": ...}, LPS mm. With --course
FILE, an earlier course.json, its images and lesions are taken and only FOLLOWUPs are given. OUT ends in .json, or is a
folder for tracking.json, tracking.csv, course.json (see docs/course-format.md), course.csv, the course on one page
(report.png, report.pdf) and, where LESIONS has contours, the contours of the baseline and of each follow-up
(contours_0.nii.gz, ...; label n is the n-th lesion). Every lesion and visit has a state: unchanged, grown, shrunk,
merged, split, gone, not found or outside. Support for a reading, not a diagnosis.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    from .options import add_machine, add_progress, add_weights

    parser.description = EXPLANATION.strip()
    parser.usage = (
        "samconvex track BASELINE LESIONS FOLLOWUP [FOLLOWUP ...] -o OUT [options]\n"
        "       samconvex track --course FILE FOLLOWUP [FOLLOWUP ...] -o OUT [options]"
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="BASELINE (image that the lesions were marked in), LESIONS (label map, .csv, .fcsv, .mrk.json or .json) "
        "and one or more FOLLOWUPs (later images, oldest first); with --course FOLLOWUPs alone",
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="folder, or a file ending in .json")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--dates",
        nargs="+",
        metavar="DAY",
        default=[],
        help="days (2026-11-27) of the baseline and the follow-ups, or of the follow-ups alone; default those of DICOM",
    )
    parser.add_argument(
        "--course", metavar="FILE", help="continue this course.json (it stays as it is; OUT gets the longer one)"
    )
    parser.add_argument("--patient", metavar="NAME", help="name of the patient in the course")
    parser.add_argument(
        "--new-lesions",
        action="store_true",
        help="also propose new lesions: places of each FOLLOWUP where the registered baseline shows nothing alike "
        "(CT; takes about a minute each), to be accepted or rejected by a reader",
    )
    parser.add_argument(
        "--dicom-sr",
        metavar="FILE",
        help="also write the course as a DICOM structured report (TID 1500); every image must be a DICOM series, and "
        "samconvex[dicom] installed",
    )
    parser.add_argument(
        "--csv-separator",
        choices=(",", ";"),
        default=",",
        help="of course.csv; ; with decimal commas, as spreadsheets of many languages want it (default: ,)",
    )
    parser.add_argument(
        "--split-parts",
        action="store_true",
        help="every connected part of a label is a lesion of its own (default: one lesion, which is said)",
    )
    parser.add_argument(
        "--each-contour",
        action="store_true",
        help="write the carried and the suggested contour of every lesion, in files that tracking.json "
        "names, instead of one label map per follow-up (OUT is a folder)",
    )
    parser.add_argument(
        "--min-score", type=_share, metavar="S", help="found from this score on, 0 to 1 (default: calibrated)"
    )
    add_weights(parser)
    add_machine(parser)
    add_progress(parser)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no score; give a number from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    """Track as ``args`` say; all files appear together at the end."""
    output = Path(args.output)
    single = output.name.lower().endswith(".json")
    folder = output.parent if single else output
    paths = _follow_up_paths(args)
    contours = [f"contours_{number}.nii.gz" for number in range(1, len(paths) + 1)]
    _check_output(args, output, contours)

    import torch

    from ..device import chosen_device
    from ..weights.models import load_sam
    from . import track_extras as extras
    from .track_plan import organs_of, planned, said_of_anatomy

    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(chosen_device(args.device))
    stages = [("read", 2.0), ("embedding", 5.0), ("tracking", 5.0)]
    stages += [("affine", 5.0), ("convex", 5.0), ("new lesions", 5.0)] if args.new_lesions else []
    progress = ConsoleProgress(args.progress, stages, args.cancelled)
    model = load_sam(args.weights)
    progress("read", 0.0)
    way_out = "resample {path} onto a straight grid first, or give --each-contour"
    plan = planned(args, paths, contours, progress, None if single or args.each_contour else way_out)
    if not single:
        # An earlier run's contours, which the course still points to, may have the names of this one's.
        _check_folder(args, output, contours, plan.course.files())
    extras.check_extras(plan, args)
    already = said_of_anatomy(plan, model, device, progress)
    warnings = [*already, *plan.notes]
    result = _tracked(plan, args, model, device, progress)
    proposed = extras.proposals(plan, result, args, device, progress) if args.new_lesions else None
    organs = organs_of(plan, model, device)
    with output_folder(folder, overwrite=args.overwrite or single, stale=() if single else contours) as staging:
        from . import track_output as out

        named = out.write_each_contour(result, staging) if args.each_contour else {}
        target = staging / (output.name if single else "tracking.json")
        out.write_json(result, target, named, organs, warnings, proposed)
        if not single:
            out.write_table(result, staging / "tracking.csv")
            if not args.each_contour:
                named = out.write_contours(result, plan, staging, [BASELINE_CONTOURS, *contours])
        if not single or args.dicom_sr is not None:
            course, notes = out.course_of(plan, result, named, organs, folder)
            warnings += notes
        if not single:
            out.write_course(course, folder, staging / COURSE_FILE)
            out.write_page_and_table(course, plan, folder, staging, args.csv_separator)
        if args.dicom_sr is not None:
            extras.write_report(course, args.dicom_sr, folder, staging)
    progress.finish(str(args.output))
    merged = [finding.reason for finding in result.findings if finding.merged_with]
    say_notes([*(note for note in dict.fromkeys(warnings) if note not in already), *merged])
    if args.progress != "json":
        for number, path in enumerate(paths):
            states = Counter(finding.state for finding in result.findings if finding.follow_up == number)
            print(f"{path}: " + ", ".join(f"{count} {state}" for state, count in states.items()))
            if proposed is not None:
                print("\n".join(extras.said_of(path, proposed[number])))
    return 0


def _tracked(plan: Plan, args: argparse.Namespace, model: SamModel, device: str, progress: Progress) -> TrackingResult:
    """The lesions of every visit that some were marked in, found in the follow-ups."""
    from ..lesions.recording import combined
    from ..lesions.tracking import track_lesions

    return combined(
        [
            track_lesions(
                image,
                lesions,
                plan.follow_ups,
                minimum_score=args.min_score,
                weights=model,
                device=device,
                progress=progress,
            )
            for _, image, lesions in plan.marked
        ]
    )


def _follow_up_paths(args: argparse.Namespace) -> list[str]:
    """The follow-ups among the files; BASELINE and LESIONS come first where no course is continued.

    Raises:
        InputError: too few files.
    """
    if args.course is not None:
        return list(args.files)
    if len(args.files) < 3:
        raise InputError(
            f"{len(args.files)} files were given; give BASELINE LESIONS FOLLOWUP, or FOLLOWUP with --course FILE."
        )
    return list(args.files[2:])


def _check_output(args: argparse.Namespace, output: Path, contours: list[str]) -> None:
    single = output.name.lower().endswith(".json")
    sources = [*args.files, *([args.course] if args.course is not None else [])]
    if args.dicom_sr is not None:
        report = Path(args.dicom_sr)
        check_output_file(report, inputs=sources)
        if report.exists() and not args.overwrite:
            raise InputError(f"{report} exists; give another file for --dicom-sr, or --overwrite.")
        _check_report_place(report.absolute(), output.absolute(), single, contours)
    if single and args.each_contour:
        raise InputError(f"{output} is one file; give a folder for --each-contour.")
    if single and args.course is not None:
        raise InputError(f"{output} is one file; give a folder, which the continued course.json is written into.")
    if single:
        check_output_file(output, inputs=sources)
        if output.exists() and not args.overwrite:
            raise InputError(f"{output} exists; give another output or --overwrite.")
    else:
        _check_folder(args, output, contours, sources)


def _check_report_place(report: Path, output: Path, single: bool, contours: list[str]) -> None:
    """Refuse a report in the place of another result, or in a folder of OUT, which appears as a whole at the end."""
    if report == output or (report.parent == output and report.name in _results(contours)):
        raise InputError(f"{report} is a result of its own; give another file for --dicom-sr.")
    if not single and output in report.parents and report.parent != output:
        raise InputError(f"{report} is in a folder of the output; give a file in {output} itself or outside of it.")


def _results(contours: list[str]) -> list[str]:
    """Names of what is written into a folder."""
    return ["tracking.json", "tracking.csv", COURSE_FILE, TABLE_FILE, *PAGE_FILES, BASELINE_CONTOURS, *contours]


def _check_folder(args: argparse.Namespace, output: Path, contours: list[str], sources: list[str]) -> None:
    check_output_folder(output, names=_results(contours), overwrite=args.overwrite, inputs=sources)
