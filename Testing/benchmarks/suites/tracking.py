"""Tracking suite: synthetic lesions in real CTs, followed through exactly known changes.

``samconvex benchmark --suite tracking`` writes ``tracking.md`` and ``tracking.json``. Every image gets lesions of 6 to
30 mm, some with a neighbor that looks like them; its follow-ups have another posture (turn, shift, bumps of up to 12
mm), spacing, noise and brightness, and by turns another contrast phase, slices of 5 mm, a sharp or a soft kernel, a
patient turned by up to 30 degrees, or a part of the body cut away. Every lesion is grown, shrunk, unchanged, removed,
split or merged with its neighbor, some are necrotic; what a reader could not see does not happen (half of the border
stands out by 30 HU, parts span one and a half voxels). Evaluated are only images that no network was trained on;
``--calibration`` takes other images, which thresholds were chosen on. ``--minutes`` ends a long run early; the same
command then goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from samconvex import read_volume
from samconvex.anatomy.cache import embed_cached
from samconvex.lesions.course import GONE, OUTSIDE
from samconvex.lesions.findings import TrackingResult
from samconvex.lesions.lesion import Lesion
from samconvex.lesions.measurement import measure_lesion
from samconvex.lesions.tracking import track_lesions
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.weights.models import SamModel, load_sam

from ..data.later_images import HARD
from ..data.pairs import EVALUATION_ABDOMENS, REPOSITORY, WARPED_CASES, data_folder
from ..data.synthetic_lesions import (
    FollowUp,
    SyntheticLesion,
    insert,
    lesion_mask,
    make_follow_up,
    place_lesions,
    place_pairs,
)
from ..results.tracking import markdown, summary

CALIBRATION_TRUNK = ("lungfcp01", "c3l00189", "crlm1004", "nsclcrg001")
CALIBRATION_ABDOMEN = ("btcv05", "btcv02", "btcv00", "btcv12", "btcv07", "btcv11")
KINDS = ("mask", "mask", "mask", "box", "diameter", "point")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite tracking", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmark-output")
    parser.add_argument("--head-neck", type=int, default=0, help="head-neck patients (default: 0)")
    parser.add_argument("--trunk", type=int, default=4, help="trunk CTs (default: 4)")
    parser.add_argument("--abdomen", type=int, default=6, help="abdominal CTs (default: 6)")
    parser.add_argument("--lesions", type=int, default=8, help="lesions per image, neighbors apart (default: 8)")
    parser.add_argument("--pairs", type=int, default=2, help="lesions that get a neighbor (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no follow-up after so long")
    parser.add_argument("--calibration", action="store_true", help="use the images thresholds were chosen on")
    parser.add_argument("--weights", help="network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    model = load_sam(options.weights)
    options.output.mkdir(parents=True, exist_ok=True)
    name = "tracking-calibration" if options.calibration else "tracking"
    file = options.output / f"{name}.json"
    run = {"weights": model.sha256, "lesions": options.lesions, "pairs": options.pairs, "seed": options.seed}
    records = earlier(file, run)
    end = time.monotonic() + 60 * options.minutes
    for number, (case, load) in enumerate(images(options)):
        for found in run_image(case, load, np.random.default_rng([options.seed, number]), run, model, records, end):
            records += found
            document = {"run": run, "summary": summary(records), "records": records}
            file.write_text(json.dumps(document, indent=1) + "\n")
            (options.output / f"{name}.md").write_text(markdown(document))
    if records:
        print((options.output / f"{name}.md").read_text(encoding="utf-8"))
    return 0


def earlier(file: Path, run: dict) -> list[dict]:
    """The records of an unfinished run of the same kind."""
    if not file.is_file():
        return []
    document = json.loads(file.read_text(encoding="utf-8"))
    return document["records"] if document.get("run") == run else []


def images(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Volume]]]:
    """The images by name, loaded on demand; phantoms where the evaluation images are absent."""
    data = data_folder()
    if data is None:
        for seed in range(2):
            yield f"phantom {seed}", lambda s=seed: make_phantom(s, 3.0, couch=False).ct
        return
    with open(data / "headneck_pairs.csv", newline="") as file:
        held_out = [case for row in csv.DictReader(file) for case in row.values()]
    head_neck, trunk, abdomen = held_out, WARPED_CASES, EVALUATION_ABDOMENS
    if options.calibration:
        paths = sorted((data / "headneck").glob("*_ct.nii.gz"))
        trained = [name for path in paths if (name := path.name.removesuffix("_ct.nii.gz")) not in held_out]
        head_neck = trained[:: max(1, len(trained) // max(1, options.head_neck))]
        trunk, abdomen = CALIBRATION_TRUNK, CALIBRATION_ABDOMEN
    groups = (("trunk", trunk[: options.trunk]), ("abdomen", abdomen[: options.abdomen]))
    for folder, cases in (*groups, ("headneck", head_neck[: options.head_neck])):
        for case in cases:
            yield case, lambda c=case, f=folder: read_volume(data / f / f"{c}_ct.nii.gz")


def run_image(
    case: str,
    load: Callable[[], Volume],
    random: np.random.Generator,
    run: dict,
    model: SamModel,
    done: list[dict],
    end: float,
) -> Iterator[list[dict]]:
    """One record per lesion of each follow-up that has none yet, follow-up by follow-up."""
    known = {record["condition"] for record in done if record["case"] == case}
    if len(known) == len(HARD) or time.monotonic() > end:
        return
    image = load()
    lesions = place_lesions(image, run["lesions"], random, large=3, seen=True)
    lesions = place_pairs(image, lesions, run["pairs"], random)
    if not lesions:
        return
    baseline = insert(image, lesions, random)
    given = [describe(baseline, lesion, number) for number, lesion in enumerate(lesions)]
    for condition in HARD:
        later = make_follow_up(image, lesions, random, condition=condition)
        if condition.name in known or time.monotonic() > end:
            continue
        try:
            for volume in (baseline, later.image):
                embed_cached(volume, model, disk=False)
            begin = time.perf_counter()
            result = track_lesions(baseline, given, [later.image], weights=model)
            seconds = (time.perf_counter() - begin) / len(lesions)
        except Exception as error:
            raise RuntimeError(f"{case}, {condition.name}") from error
        found = compare(result, lesions, later)
        right = sum(record["state"] == record["truth"] for record in found)
        print(f"{case:>12} {condition.name}: {right} of {len(found)} states, {seconds:.1f} s a lesion", flush=True)
        yield [{"case": case, "condition": condition.name, "seconds": seconds, **record} for record in found]


def describe(baseline: Volume, lesion: SyntheticLesion, number: int) -> Lesion:
    """What a reader would give: a segment, box, longest diameter or point, by turns."""
    kind, name = KINDS[number % len(KINDS)], f"{KINDS[number % len(KINDS)]} {number}"
    mask = lesion_mask(baseline.grid, lesion)
    measured = measure_lesion(mask, baseline.grid)
    if kind == "mask" or measured is None:
        return Lesion.from_mask(name, mask)
    if kind == "diameter":
        return Lesion.from_diameters(name, np.stack([measured.longest_points, measured.short_axis_points]))
    points = mask.grid.voxels_to_points((mask.tensor[0, 0] > 0).nonzero().flip(1).numpy())
    if kind == "box":
        margin = np.asarray(mask.grid.spacing) / 2 + 1.0
        return Lesion.from_box(name, np.stack([points.min(0) - margin, points.max(0) + margin]))
    return Lesion(name, lesion.center)


def compare(result: TrackingResult, lesions: list[SyntheticLesion], later: FollowUp) -> list[dict]:
    """Findings of one follow-up against its truth."""
    records = []
    for row, (finding, lesion) in enumerate(zip(result.findings, lesions, strict=True)):
        box, truth = later.boxes[row], later.measurements[row]
        distance = float(np.linalg.norm(finding.position - later.centers[row]))
        inside = bool(((finding.position >= box[0]) & (finding.position <= box[1])).all())
        fate = GONE if later.fates[row] == "removed" else later.fates[row]
        record = {
            "lesion": finding.lesion,
            "kind": finding.lesion.split()[0],
            "truth": OUTSIDE if later.view[row] == "outside" else fate,
            "view": later.view[row],
            "state": finding.state,
            "found": finding.found,
            "score": finding.score,
            "cycle_mm": finding.cycle_mm,
            "diameter_mm": 2 * float(lesion.radii.mean()),
            "radius_mm": float((box[1] - box[0]).mean() / 2),
            "hounsfield": lesion.hounsfield,
            "necrotic": bool(later.necrotic[row]),
            "neighbor": lesion.partner is not None,
            "inside": inside,
        }
        if np.isfinite(distance):
            record["distance_mm"] = distance
        if np.isfinite(finding.error90_mm):
            record["error90_mm"] = finding.error90_mm
        if finding.measurement is not None and finding.error is not None and truth is not None:
            record["longest_mm"] = [truth.longest_mm, finding.measurement.longest_mm, finding.error.longest_mm]
            record["volume_ml"] = [truth.volume_ml, finding.measurement.volume_ml, finding.error.volume_ml]
        records.append(record)
    return records


if __name__ == "__main__":
    raise SystemExit(main())
