"""``samconvex match``: points of one volume found in others, written as csv or Slicer markups."""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .console import ConsoleProgress
from .errors import InputError
from .outputs import check_output_file, check_output_folder, output_folder
from .points import POINT_ENDINGS, PointSet, check_writable_ending, read_points, write_points

if TYPE_CHECKING:
    from .matching import Matches

COLUMNS = ("label", "x", "y", "z", "score", "cycle_mm", "found")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

EXPLANATION = """
Find the points of TEMPLATE in each QUERY by anatomical embeddings. OUT ends in .csv (label,x,y,z,score,cycle_mm,found;
LPS mm; no coordinates where a point was not found) or in .mrk.json (not found: an undefined control point). With
several queries, one file each: OUT_QUERY.csv, or QUERY.csv in the folder OUT.
"""


def add_match_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    from .register_command import device_name, positive_int

    parser.description = EXPLANATION.strip()
    parser.add_argument("template", metavar="TEMPLATE", help="image that the points were placed in")
    parser.add_argument("points", metavar="POINTS", help="its points: " + ", ".join(POINT_ENDINGS))
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="images to find them in")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file (or folder, with several queries)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument("--mode", choices=("stable", "fast"), default="stable",
                        help="stable (default): a neighborhood votes; fast: one lookup, less exact")
    parser.add_argument("--min-score", type=_score, metavar="S", help="found from this score on (default: calibrated)")
    parser.add_argument("--weights", metavar="NAME|FILE", help="network weights (default: the shipped ones)")
    parser.add_argument("--device", type=device_name, default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--progress", choices=("bar", "json", "none"), default="bar",
                        help="a bar, one JSON object per line on stdout, or nothing")


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 2.0
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no score; give a number from -1 to 1")
    return value


def run_match(args: argparse.Namespace) -> int:
    """Match as ``args`` say; all files appear together at the end."""
    targets = output_paths(args.output, args.queries)
    sources = [args.template, args.points, *args.queries]
    folder = targets[0].parent
    if len(targets) == 1:
        check_output_file(targets[0], inputs=sources)
    taken = [target for target in targets if target.exists()]
    if taken and not args.overwrite:
        raise InputError(f"{taken[0]} exists; give another output or --overwrite.")
    check_output_folder(folder, names=[t.name for t in targets], overwrite=True, inputs=sources)

    import torch

    from .matching import match_points
    from .volume import read_volume
    from .weights import load_sam

    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    progress = ConsoleProgress(args.progress, (("read", 2.0), ("embedding", 5.0), ("matching", 2.0)), args.cancelled)
    model = load_sam(args.weights)
    progress("read", 0.0)
    template = read_volume(args.template)
    points = read_points(args.points, template.grid)
    known = points.defined
    results: list[PointSet] = []
    answers: list[Matches] = []
    for query in args.queries:
        image = read_volume(query)
        matches = match_points(
            template, points.positions[known], image, weights=model, mode=args.mode, min_score=args.min_score,
            device=device, progress=progress,
        )
        positions = points.positions * float("nan")
        positions[known] = matches.positions
        results.append(PointSet(positions, points.labels, source=str(query)))
        answers.append(matches)
    with output_folder(folder, overwrite=True) as staging:
        for target, found, matches in zip(targets, results, answers, strict=True):
            _write(staging / target.name, found, matches, known.tolist())
    progress.finish(str(args.output))
    if args.progress != "json":
        for target, matches in zip(targets, answers, strict=True):
            print(f"{target}: {int(matches.found.sum())} of {len(matches)} points found")
    return 0


def output_paths(output: str, queries: list[str]) -> list[Path]:
    """One file per query, see :data:`EXPLANATION`.

    Raises:
        InputError: an ending that cannot be written.
    """
    if len(queries) == 1:
        check_writable_ending(output)
        return [Path(output)]
    ending = next((e for e in POINT_ENDINGS if output.lower().endswith(e)), None)
    names: list[str] = []
    for query in queries:
        name = Path(query).name
        name = next((name[: -len(e)] for e in IMAGE_ENDINGS if name.lower().endswith(e)), name)
        name = re.sub(r"[^\w.-]+", "_", name)
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    if ending is None:
        return [Path(output) / f"{name}.csv" for name in names]
    check_writable_ending(output)
    return [Path(f"{output[: -len(ending)]}_{name}{ending}") for name in names]


def _write(path: Path, points: PointSet, matches: Matches, known: list[bool]) -> None:
    """Points without a position in the template have no score."""
    rows = iter(range(len(matches)))
    order = [next(rows) if defined else None for defined in known]
    if path.name.lower().endswith(".mrk.json"):
        texts = [
            "" if row is None else f"score {matches.score[row]:.3f}, cycle {matches.cycle_mm[row]:.1f} mm"
            for row in order
        ]
        write_points(points, path, descriptions=texts)
        return
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for label, position, row in zip(points.labels, points.positions, order, strict=True):
            found = row is not None and bool(matches.found[row])
            place = [f"{value:.3f}" for value in position] if found else ["", "", ""]
            numbers = ["", ""] if row is None else [f"{matches.score[row]:.4f}", f"{matches.cycle_mm[row]:.2f}"]
            writer.writerow([label, *place, *numbers, str(found).lower()])
