"""``samconvex track``: baseline lesions found and measured in follow-up images."""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..io.outputs import check_output_file, check_output_folder, output_folder
from .console import ConsoleProgress, say_notes

if TYPE_CHECKING:
    from ..lesions.findings import TrackingResult
    from ..space.volume import Volume

COLUMNS = (
    "lesion",
    "follow_up",
    "state",
    "x",
    "y",
    "z",
    "score",
    "cycle_mm",
    "longest_mm",
    "short_axis_mm",
    "volume_ml",
)

EXPLANATION = """
Find the lesions of BASELINE in each FOLLOWUP, in the order given. LESIONS is a label map (one lesion per label, or per
connected part where there is one label), points (.csv, .fcsv), Slicer markups (.mrk.json: points, lines, ROIs) or a
.json list of {"name": ..., and "point", "box", "line" or "mask": ...}, LPS mm. OUT ends in .json, or is a folder for
tracking.json, tracking.csv and, where LESIONS has contours, the suggested contours of each follow-up
(contours_1.nii.gz, ...; label n is the n-th lesion). Support for a reading, not a diagnosis.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    from .options import add_machine, add_progress, add_weights

    parser.description = EXPLANATION.strip()
    parser.add_argument("baseline", metavar="BASELINE", help="image that the lesions were marked in")
    parser.add_argument("lesions", metavar="LESIONS", help="its lesions: label map, .csv, .fcsv, .mrk.json or .json")
    parser.add_argument("follow_ups", metavar="FOLLOWUP", nargs="+", help="later images of the patient, oldest first")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="folder, or a file ending in .json")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
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
    sources = [args.baseline, args.lesions, *args.follow_ups]
    contours = [f"contours_{number}.nii.gz" for number in range(1, len(args.follow_ups) + 1)]
    if single and args.each_contour:
        raise InputError(f"{output} is one file; give a folder for --each-contour.")
    if single:
        check_output_file(output, inputs=sources)
        if output.exists() and not args.overwrite:
            raise InputError(f"{output} exists; give another output or --overwrite.")
    else:
        names = ["tracking.json", "tracking.csv", *contours]
        check_output_folder(folder, names=names, overwrite=args.overwrite, inputs=sources)

    import torch

    from ..anatomy.cache import embed_cached
    from ..anatomy.level import anatomy_of, warnings_about
    from ..device import chosen_device
    from ..io.images import check_format, read_volume
    from ..lesions.files import lesion_notes, read_lesions
    from ..lesions.tracking import track_lesions
    from ..weights.models import load_sam

    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(chosen_device(args.device))
    progress = ConsoleProgress(args.progress, (("read", 2.0), ("embedding", 5.0), ("tracking", 5.0)), args.cancelled)
    model = load_sam(args.weights)
    progress("read", 0.0)
    baseline = read_volume(args.baseline)
    lesions = read_lesions(args.lesions)
    warnings = [*baseline.notes, *lesion_notes(lesions, baseline)]
    follow_ups = []
    for number, path in enumerate(args.follow_ups):
        progress("read", (number + 1) / (len(args.follow_ups) + 1))
        follow_ups.append(read_volume(path))
        warnings += follow_ups[-1].notes
        if not (single or args.each_contour):
            straighten = f"resample {path} onto a straight grid first, or give --each-contour"
            check_format(contours[number], follow_ups[-1].grid, way_out=straighten)
    already: list[str] = []
    for follow_up in follow_ups:
        # Tracking asks for the same embeddings again.
        shown = [
            anatomy_of(embed_cached(image, model, device=device, progress=progress)) for image in (baseline, follow_up)
        ]
        said = warnings_about(shown[0], shown[1], ("the baseline", follow_up.name))
        say_notes(said)
        already += said
        warnings = [*said, *warnings]
    result = track_lesions(
        baseline, lesions, follow_ups, minimum_score=args.min_score, weights=model, device=device, progress=progress
    )
    with output_folder(folder, overwrite=args.overwrite or single, stale=() if single else contours) as staging:
        named = _write_each_contour(result, staging) if args.each_contour else {}
        _write_json(result, staging / (output.name if single else "tracking.json"), named, warnings)
        if not single:
            _write_table(result, staging / "tracking.csv")
        if not (single or args.each_contour):
            _write_contours(result, follow_ups, [staging / name for name in contours])
    progress.finish(str(args.output))
    say_notes(
        [
            *(note for note in warnings if note not in already),
            *(finding.reason for finding in result.findings if finding.merged_with),
        ]
    )
    if args.progress != "json":
        for number, path in enumerate(args.follow_ups):
            states = Counter(finding.state for finding in result.findings if finding.follow_up == number)
            print(f"{path}: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    return 0


def _write_json(
    result: TrackingResult, path: Path, contours: dict[tuple[int, int, str], str], warnings: list[str]
) -> None:
    """``contours``: file by lesion, follow-up (both from 0) and kind."""
    from ..lesions.response import NOTICE
    from ..version import __version__

    document = {"version": __version__, "notice": NOTICE, **result.to_dict(), "warnings": warnings}
    for (lesion, follow_up, kind), name in contours.items():
        document["lesions"][lesion]["timepoints"][follow_up][kind] = name
    path.write_text(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_table(result: TrackingResult, path: Path) -> None:
    """One line per lesion and time point; follow_up 0 is the baseline."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer: csv.DictWriter = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="", extrasaction="ignore")
        writer.writeheader()
        for lesion in result.to_dict()["lesions"]:
            start = {"follow_up": -1, "state": "baseline", "position": lesion["point"], **_sizes(lesion)}
            for point in (start, *({**point, **_sizes(point)} for point in lesion["timepoints"])):
                place = dict(zip("xyz", point.get("position", ("", "", "")), strict=True))
                writer.writerow({**point, **place, "lesion": lesion["name"], "follow_up": point["follow_up"] + 1})


def _write_each_contour(result: TrackingResult, folder: Path) -> dict[tuple[int, int, str], str]:
    """Every contour on its own grid; returns the file names."""
    from ..io.images import write_volume

    names = {}
    for row, lesion in enumerate(result.lesions):
        for finding in result.of(lesion.name):
            for kind, contour in (("carried", finding.carried), ("suggested", finding.suggested)):
                if contour is not None:
                    name = f"{kind}-{row + 1}-{finding.follow_up + 1}.mha"
                    write_volume(contour, folder / name)
                    names[row, finding.follow_up, kind] = name
    return names


def _sizes(record: dict) -> dict:
    return record.get("measurement", {})


def _write_contours(result: TrackingResult, follow_ups: list[Volume], paths: list[Path]) -> None:
    """The suggested contours of each follow-up as one label map on its grid; none where there are none."""
    import SimpleITK as sitk
    import torch

    from ..io.images import write_volume
    from ..space.volume import Volume, resample

    for number, (follow_up, path) in enumerate(zip(follow_ups, paths, strict=True)):
        labels = torch.zeros(follow_up.grid.shape, dtype=torch.int16)
        for row, lesion in enumerate(result.lesions, start=1):
            finding = next(f for f in result.of(lesion.name) if f.follow_up == number)
            if finding.suggested is not None:
                mask = finding.suggested
                inside = resample(mask.with_tensor(mask.as_float()), follow_up.grid, fill=0.0).tensor[0, 0] > 0.5
                labels[inside] = row
        if bool(labels.any()):
            write_volume(Volume(labels[None, None], follow_up.grid, sitk.sitkInt16), path)
