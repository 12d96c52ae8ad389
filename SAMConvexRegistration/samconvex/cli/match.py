"""``samconvex match``: points of one volume found in others, written as csv or Slicer markups."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..io.outputs import check_output_file, check_output_folder, output_folder
from ..io.points import POINT_ENDINGS, PointSet, check_writable_ending, read_points, write_points
from .console import ConsoleProgress, say_notes

if TYPE_CHECKING:
    from ..anatomy.embedding import SamEmbedding
    from ..landmarks.voting import Vote
    from ..progress import Progress
    from ..space.volume import Volume

COLUMNS = ("label", "x", "y", "z", "score", "cycle_mm", "found", "state", "error90_mm")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

EXPLANATION = """
Find the points of TEMPLATE in each QUERY by anatomical embeddings. OUT ends in .csv
(label,x,y,z,score,cycle_mm,found,state,error90_mm; LPS mm; no coordinates where a point was not found) or in
.mrk.json (not found: an undefined control point). The state is "found", "not found" (no reliable match) or "outside"
(the query does not show that part of the body); nine of ten errors stay below error90_mm. With several queries, one
file each: OUT_QUERY.csv, or QUERY.csv in the folder OUT. Where OUT ends in .json, one file holds all queries, with
the best place also of points that were not found, and "warnings". TEMPLATE may be a folder of "samconvex template".
"""


def add_match_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    from .options import add_machine, add_progress, add_weights

    parser.description = EXPLANATION.strip()
    parser.add_argument("template", metavar="TEMPLATE", help="image that the points were placed in")
    parser.add_argument("points", metavar="POINTS", help="its points: " + ", ".join(POINT_ENDINGS))
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="images to find them in")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file (or folder, with several queries)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--also",
        nargs=2,
        action="append",
        default=[],
        metavar=("TEMPLATE", "POINTS"),
        help="a further template of points with the same labels; all templates vote (may be repeated)",
    )
    parser.add_argument(
        "--mode",
        choices=("stable", "fast"),
        default="stable",
        help="stable (default): a neighborhood votes; fast: one lookup, less exact",
    )
    parser.add_argument("--min-score", type=_score, metavar="S", help="found from this score on (default: calibrated)")
    add_weights(parser)
    add_machine(parser)
    add_progress(parser)


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 2.0
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no score; give a number from -1 to 1")
    return value


@dataclass(frozen=True)
class Source:
    """A template with its points: an image, or the embedding of a template folder."""

    image: Volume | SamEmbedding
    points: PointSet


def run_match(args: argparse.Namespace) -> int:
    """Match as ``args`` say; all files appear together at the end."""
    targets = output_paths(args.output, args.queries)
    sources = [args.template, args.points, *(path for pair in args.also for path in pair), *args.queries]
    folder = targets[0].parent
    if len(targets) == 1:
        check_output_file(targets[0], inputs=sources)
    taken = [target for target in targets if target.exists()]
    if taken and not args.overwrite:
        raise InputError(f"{taken[0]} exists; give another output or --overwrite.")
    check_output_folder(folder, names=[t.name for t in targets], overwrite=True, inputs=sources)

    import torch

    from ..device import chosen_device
    from ..io.checks import check_inside
    from ..io.images import read_volume
    from ..landmarks.templates import template_embedding
    from ..space.volume import Volume
    from ..weights.models import load_sam

    if args.threads:
        torch.set_num_threads(args.threads)
    device = str(chosen_device(args.device))
    steps = len(args.queries) * (1 + len(args.also))
    shares = [(f"{stage} {n}", share) for n in range(steps) for stage, share in (("embedding", 5.0), ("matching", 2.0))]
    progress = ConsoleProgress(args.progress, (("read", 2.0), *shares), args.cancelled)
    model = load_sam(args.weights)
    progress("read", 0.0)
    for query in args.queries[1:]:
        # A later one that is unusable must not cost the work on those before it.
        read_volume(query, slices=True)
    templates = []
    notes: list[str] = []
    for image, points in [(args.template, args.points), *args.also]:
        template = template_embedding(image, model, device=device, progress=_numbered(progress, 0, steps))
        notes += template.notes if isinstance(template, Volume) else ()
        known = read_points(points, template.grid)
        check_inside(known, template.grid, str(image))
        templates.append(Source(template, known))
    labels, rows = common_points([source.points for source in templates])
    results: list[tuple[PointSet, Vote]] = []
    options = {"weights": model, "mode": args.mode, "min_score": args.min_score, "device": device}
    for number, query in enumerate(args.queries):
        image = read_volume(query, slices=True)
        notes += image.notes
        votes = _match(templates, rows, image, options, progress, number, steps)
        results.append((PointSet(votes.matches.positions, labels, source=str(query)), votes))
    with output_folder(folder, overwrite=True) as staging:
        if _is_report(args.output):
            report: dict[str, Any] = {str(q): _report(p, v) for q, (p, v) in zip(args.queries, results, strict=True)}
            report["warnings"] = list(dict.fromkeys(notes))
            text = json.dumps(report, indent=1, allow_nan=False) + "\n"
            (staging / targets[0].name).write_text(text, encoding="utf-8")
        else:
            for target, (points, votes) in zip(targets, results, strict=True):
                _write(staging / target.name, points, votes)
    progress.finish(str(args.output))
    say_notes(notes)
    if args.progress != "json":
        for query, (_points, votes) in zip(args.queries, results, strict=True):
            print(f"{query}: {int(votes.matches.found.sum())} of {len(votes.matches)} points found")
    return 0


def common_points(sets: Sequence[PointSet]) -> tuple[tuple[str, ...], list[list[int | None]]]:
    """All landmarks of several templates and the row of each in each template.

    Points belong together by label; a template's unlabeled or repeated labels stand for themselves. The first
    template's points come first and in its order.
    """
    labels: list[str] = list(sets[0].labels)
    rows: list[list[int | None]] = [list(range(len(labels)))]
    for points in sets[1:]:
        mine: list[int | None] = [None] * len(labels)
        for row, label in enumerate(points.labels):
            place = labels.index(label) if label and labels.count(label) == points.labels.count(label) == 1 else None
            if place is None:
                labels.append(label)
                mine.append(row)
            else:
                mine[place] = row
        rows.append(mine)
    return tuple(labels), [[*mine, *[None] * (len(labels) - len(mine))] for mine in rows]


def _match(
    templates: list[Source],
    rows: list[list[int | None]],
    image: Volume,
    options: dict[str, Any],
    progress: Progress,
    number: int,
    steps: int,
) -> Vote:
    """One query against all templates; a point that a template lacks has score 0 there and is not found."""
    from ..anatomy.cache import embed_cached
    from ..anatomy.embedding import SamEmbedding
    from ..anatomy.level import anatomy_of, warnings_about
    from ..landmarks.matching import Matches, match_points
    from ..landmarks.voting import vote

    def embedded(source: Volume | SamEmbedding, report: Progress) -> SamEmbedding:
        if isinstance(source, SamEmbedding):
            return source
        return embed_cached(source, options["weights"], device=options["device"], progress=report)

    answers = []
    for turn, (source, mine) in enumerate(zip(templates, rows, strict=True)):
        known = np.array([row is not None and bool(source.points.defined[row]) for row in mine])
        chosen = source.points.positions[[row for row, use in zip(mine, known, strict=True) if use and row is not None]]
        report = _numbered(progress, number * len(templates) + turn, steps)
        pair = embedded(source.image, report), embedded(image, report)
        say_notes(warnings_about(anatomy_of(pair[0]), anatomy_of(pair[1]), ("the template", image.name)))
        matches = match_points(pair[0], chosen, pair[1], progress=report, **options)
        count = len(mine)
        no = np.zeros(count, bool)
        every = Matches(np.zeros((count, 3)), np.zeros(count), np.zeros(count), no, no.copy())
        for name in ("points", "score", "cycle_mm", "found"):
            getattr(every, name)[known] = getattr(matches, name)
        if matches.outside is not None and every.outside is not None:
            every.outside[known] = matches.outside
        answers.append(every)
    return vote(answers)


def _numbered(progress: Progress, number: int, steps: int) -> Progress:
    """Progress of one of several equal steps; a stage is called by its own name where there is only one."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        progress(f"{stage} {number}", fraction, message)

    return report


def _is_report(output: str) -> bool:
    return output.lower().endswith(".json") and not output.lower().endswith(".mrk.json")


def _report(points: PointSet, votes: Vote) -> list[dict[str, Any]]:
    """One entry per point for programs; without a place where no template has the point."""
    matches = votes.matches
    return [
        {
            "label": label,
            "point": [round(float(v), 4) for v in matches.points[row]] if matches.score[row] != 0 else None,
            "score": round(float(matches.score[row]), 4),
            "cycle_mm": round(float(matches.cycle_mm[row]), 3),
            "found": bool(matches.found[row]),
            "state": matches.state[row],
            **({"error90_mm": round(float(matches.error90_mm[row]), 1)} if matches.found[row] else {}),
            "votes": int(votes.votes[row]),
            "spread_mm": round(float(votes.spread_mm[row]), 3),
        }
        for row, label in enumerate(points.labels)
    ]


def output_paths(output: str, queries: list[str]) -> list[Path]:
    """One file per query, or one for all, see :data:`EXPLANATION`.

    Raises:
        InputError: an ending that cannot be written.
    """
    if _is_report(output):
        return [Path(output)]
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


def _write(path: Path, points: PointSet, votes: Vote) -> None:
    """Points without a position in any template have no score."""
    matches = votes.matches
    known = matches.score != 0
    if path.name.lower().endswith(".mrk.json"):
        texts = [
            f"{matches.state[row]}, score {matches.score[row]:.3f}, cycle {matches.cycle_mm[row]:.1f} mm"
            + (f", nine of ten within {matches.error90_mm[row]:.0f} mm" if matches.found[row] else "")
            if known[row]
            else ""
            for row in range(len(matches))
        ]
        write_points(points, path, descriptions=texts)
        return
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, (label, position) in enumerate(zip(points.labels, points.positions, strict=True)):
            found = bool(matches.found[row])
            place = [f"{value:.3f}" for value in position] if found else ["", "", ""]
            bound = f"{matches.error90_mm[row]:.1f}" if found else ""
            numbers = [f"{matches.score[row]:.4f}", f"{matches.cycle_mm[row]:.2f}"] if known[row] else ["", ""]
            writer.writerow([label, *place, *numbers, str(found).lower(), matches.state[row], bound])
