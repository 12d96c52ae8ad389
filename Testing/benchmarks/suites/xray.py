"""X-ray suite: landmarks matched between radiographs computed from CTs, whose place is known exactly.

``samconvex benchmark --suite xray --weights FILE`` writes ``xray.md`` and ``xray.json``. Every head-neck evaluation
pair is projected from the front and from the side, slightly turned. Landmarks of the organs (projected) are matched
from one patient to the other, and from one view of a patient to another; then the other patient's image is cut in the
middle of them, and what is cut away must not be found. Lengths are those in the isocenter's plane. ``--calibration``
takes the patients that watched the training, which the limits of "found" were chosen on, and prints the best ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from samconvex.anatomy.body import body_mask
from samconvex.anatomy.embed import embed
from samconvex.anatomy.embedding import SamEmbedding
from samconvex.io.images import read_labels, read_volume
from samconvex.landmarks.matching import match_points
from samconvex.space.volume import Volume, resample
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.radiograph import Projection, radiograph
from samconvex.weights.models import SamModel, load_sam
from samconvex.weights.registry import DEFAULT_XRAY

from ..data.label_landmarks import HEAD_NECK, label_landmarks
from ..data.pairs import REPOSITORY, data_folder

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "sam_xray.json"

VIEWS = {"front": 0.0, "side": 90.0}
SOURCE_MM = 1500.0
PIXEL_MM = 1.5
STEP_MM = 3.0
HIT_MM = 10.0
# Cut landmarks within these distances of the cut belong to neither side.
SEEN_MM, GONE_MM = 10.0, 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite xray", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmark-output")
    parser.add_argument("--pairs", type=int, default=20, help="head-neck pairs (default: all 20)")
    parser.add_argument("--calibration", action="store_true", help="use the patients the limits were chosen on")
    parser.add_argument("--weights", default=DEFAULT_XRAY, help="2D network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = load_sam(options.weights)
    random = np.random.default_rng(0)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / ("xray-calibration.json" if options.calibration else "xray.json")
    records: list[dict] = []
    for name, patients in patient_pairs(options.pairs, options.calibration):
        records += run_pair(name, patients, model, random)
        document = {"weights": model.sha256, **summary(records), "records": records}
        file.write_text(json.dumps(document, indent=1) + "\n")
        file.with_suffix(".md").write_text(markdown(document))
    print(file.with_suffix(".md").read_text(encoding="utf-8"))
    if options.calibration:
        score, cycle = balanced_limits([record for record in records if "present" in record])
        print(f"Limits where false finds and false losses balance: score {score:.2f}, cycle {cycle:.0f} mm")
    return 0


def patient_pairs(count: int, calibration: bool) -> Iterator[tuple[str, list[tuple[Volume, dict[str, np.ndarray]]]]]:
    """CTs of two patients with their landmarks; invented patients where the evaluation images are absent."""
    data = data_folder()
    if data is None:
        phantoms = [make_phantom(seed, 4.0, couch=False) for seed in range(2)]
        yield "phantoms", [(phantom.ct, label_landmarks(phantom.labels, None)) for phantom in phantoms]
        return
    folder = data / "headneck"
    rows = (data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1:]
    if calibration:
        watching = json.loads(CONFIG.read_text(encoding="utf-8"))["validation"]
        rows = [",".join(pair) for pair in zip(watching, watching[1:] + watching[:1], strict=True)]
    for row in rows[:count]:
        yield (
            row.replace(",", "-"),
            [
                (
                    read_volume(folder / f"{case}_ct.nii.gz"),
                    label_landmarks(read_labels(folder / f"{case}_seg.nii.gz"), HEAD_NECK),
                )
                for case in row.split(",")
            ],
        )


def run_pair(
    name: str, patients: list[tuple[Volume, dict[str, np.ndarray]]], model: SamModel, random: np.random.Generator
) -> list[dict]:
    """One record per matched landmark of a pair."""
    records = []
    bodies = [_body_only(volume) for volume, _ in patients]
    for view, turn in VIEWS.items():
        shown = [[_look(body, turn, random) for _ in range(2)] for body in bodies]
        for kind, (first, one), (second, other) in (
            ("patients", (0, 0), (1, 0)),
            ("views", (0, 0), (0, 1)),
        ):
            here, there = patients[first][1], patients[second][1]
            common = sorted(set(here) & set(there))
            if not common:
                continue
            (template, projection), (query, target) = shown[first][one], shown[second][other]
            points = projection.project(np.stack([here[key] for key in common]))
            truth = target.project(np.stack([there[key] for key in common]))
            embedding = embed(template, model)
            base = {"pair": name, "view": view, "between": kind}
            found = answers(embed(query, model), embedding, points, truth)
            records += [{**base, "name": key, **record} for key, record in zip(common, found, strict=True)]
            errors = [record["error"] for record in found]
            print(f"{name:>14} {view:<6} {kind:<9} median {np.median(errors):6.2f} max {max(errors):6.1f}", flush=True)
            if kind == "patients":
                for half in halves(query, float(np.median(truth[:, 1]))):
                    present, absent = seen(half, truth, -SEEN_MM), ~seen(half, truth, GONE_MM)
                    found = answers(embed(half, model), embedding, points, truth)
                    records += [
                        {**base, "between": "cut", "name": common[row], "present": bool(present[row]), **found[row]}
                        for row in np.flatnonzero(present | absent)
                    ]
    return records


def answers(query: SamEmbedding, template: SamEmbedding, points: np.ndarray, truth: np.ndarray) -> list[dict]:
    """Error, score, cycle error and whether it counts as found, per point."""
    matches = match_points(template, points, query)
    errors = np.linalg.norm(matches.points - truth, axis=1)
    columns = (errors, matches.score, matches.cycle_mm, matches.found)
    names = ("error", "score", "cycle_mm", "found")
    return [dict(zip(names, (v.item() for v in row), strict=True)) for row in zip(*columns, strict=True)]


def halves(image: Volume, level: float) -> Iterator[Volume]:
    """What lies above and below a level (y in mm) of an image."""
    row = int(round(float(image.grid.points_to_voxels(np.array([[0.0, level, 0.0]]))[0, 1])))
    width, height, _ = image.grid.size
    for first, last in ((0, row), (row, height)):
        if last - first >= 16:
            grid = image.grid.cropped((0, first, 0), (width, last - first, 1))
            yield image.with_tensor(image.tensor[..., first:last, :].contiguous(), grid)


def seen(image: Volume, points: np.ndarray, margin_mm: float) -> np.ndarray:
    """(N,) bool: points in the image and up to ``margin_mm`` beyond its border."""
    voxels = image.grid.points_to_voxels(points)[:, :2]
    margin = margin_mm / np.asarray(image.grid.spacing)[:2]
    return ((voxels > -0.5 - margin) & (voxels < np.asarray(image.grid.size)[:2] - 0.5 + margin)).all(1)


def balanced_limits(cuts: list[dict]) -> tuple[float, float]:
    """Score and cycle limit that lose present points and find absent ones equally rarely."""
    present = np.array([record["present"] for record in cuts])
    scores, cycles = (np.array([record[key] for record in cuts]) for key in ("score", "cycle_mm"))
    best = (np.inf, 0.0, 0.0)
    for least in np.arange(0.0, 1.0, 0.02):
        for most in (8.0, 12.0, 16.0, 24.0, 40.0):
            found = (scores >= least) & (cycles <= most)
            rates = float((~found[present]).mean()), float(found[~present].mean())
            best = min(best, (max(rates) + 0.1 * sum(rates), float(least), most))
    return best[1:]


def _body_only(volume: Volume) -> Volume:
    """Without couch and mask, as an X-ray detector sees a standing patient."""
    inside = resample(body_mask(volume), volume.grid, mode="nearest").tensor > 0
    return volume.with_tensor(volume.as_float().clamp(min=-1000).masked_fill(~inside, -1000.0))


def _look(body: Volume, turn: float, random: np.random.Generator) -> tuple[Volume, Projection]:
    """A radiograph of a patient who stands a little askew, and its projection."""
    angles = turn + random.uniform(-10, 10), random.uniform(-5, 5), random.uniform(-3, 3)
    projection = Projection.at_angles(body.grid.center, *angles, source_mm=SOURCE_MM)
    return radiograph(body, projection, projection.grid(body.grid.corners(), PIXEL_MM), step_mm=STEP_MM), projection


def summary(records: list[dict]) -> dict[str, dict]:
    """``summary``: errors by view and kind of pair; ``cuts``: what was lost and wrongly found."""
    groups: dict[str, list[float]] = {}
    for record in records:
        if "present" not in record:
            title = f"between {record['between']}"
            centers = ", organ centroids" if record["name"].endswith("center") else None
            for key in filter(None, (title, f"{title}, {record['view']}", centers and title + centers)):
                groups.setdefault(key, []).append(record["error"])
    result: dict[str, dict] = {"summary": {key: _figures(np.array(values)) for key, values in sorted(groups.items())}}
    present, absent = ([r["found"] for r in records if r.get("present") is there] for there in (True, False))
    whole = [r["found"] for r in records if r["between"] == "patients"]
    result["cuts"] = {
        "present": len(present),
        "absent": len(absent),
        "lost_in_whole_images_percent": _percent(~np.array(whole)),
        "lost_percent": _percent(~np.array(present, bool)),
        "false_found_percent": _percent(np.array(absent, bool)),
    }
    return result


def _figures(errors: np.ndarray) -> dict[str, float]:
    return {
        "points": len(errors),
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "p90": float(np.percentile(errors, 90)),
        "max": float(errors.max()),
        "hit_percent": _percent(errors < HIT_MM),
    }


def _percent(flags: np.ndarray) -> float:
    return 100.0 * float(flags.mean()) if len(flags) else 0.0


def markdown(document: dict) -> str:
    """The page of the suite."""
    lines = [
        "# Landmarks in X-ray images",
        "",
        "Written by `samconvex benchmark --suite xray`; do not edit.",
        "",
        f"Weights {document['weights'][:16]}. Organ landmarks of head-neck CTs, projected; errors in mm in the image;",
        f"hit: within {HIT_MM:.0f} mm.",
        "",
        "| | points | mean | median | p90 | max | hit % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in document["summary"].items():
        numbers = " | ".join(f"{row[key]:.2f}" for key in ("mean", "median", "p90", "max"))
        lines.append(f"| {name} | {row['points']} | {numbers} | {row['hit_percent']:.0f} |")
    cuts = document["cuts"]
    lines += ["", f"Between patients, {cuts['lost_in_whole_images_percent']:.1f} % of the points count as not found."]
    lost = f"{cuts['lost_percent']:.1f} % of {cuts['present']} present points lost"
    wrong = f"{cuts['false_found_percent']:.1f} % of {cuts['absent']} absent points found"
    lines += [f"Image cut in the middle of its landmarks: {lost}, {wrong}."]
    return "\n".join(lines) + "\n"
