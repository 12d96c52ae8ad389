"""Tracking suite: synthetic lesions in real CTs, followed through exactly known changes.

``samconvex benchmark --suite tracking`` writes ``tracking.md`` and ``tracking.json``. Every image gets lesions of 6 to
30 mm; its follow-ups have another posture (turn, shift, bumps of up to 12 mm), spacing, noise and brightness, and every
lesion is grown, shrunk, unchanged or removed; in half of them a part of the body is cut away. Evaluated are only images
that no network was trained on; ``--calibration`` takes other images, which thresholds were chosen on.
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
from samconvex.lesions.findings import FOUND, NOT_IN_VIEW, TrackingResult
from samconvex.lesions.lesion import Lesion
from samconvex.lesions.measurement import measure_lesion
from samconvex.lesions.tracking import track_lesions
from samconvex.space.volume import Volume
from samconvex.synthetic.phantom import make_phantom
from samconvex.weights.models import SamModel, load_sam

from ..data.pairs import REPOSITORY, WARPED_CASES, data_folder
from ..data.synthetic_lesions import (
    PRESENT,
    FollowUp,
    SyntheticLesion,
    insert,
    lesion_mask,
    make_follow_up,
    place_lesions,
)

CALIBRATION_TRUNK = ("lungfcp01", "c3l00189", "crlm1004", "nsclcrg001")
KINDS = ("mask", "mask", "mask", "box", "diameter", "point")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite tracking", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmark-output")
    parser.add_argument("--head-neck", type=int, default=8, help="head-neck patients (default: 8)")
    parser.add_argument("--trunk", type=int, default=4, help="trunk CTs (default: 4)")
    parser.add_argument("--lesions", type=int, default=10, help="lesions per image (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calibration", action="store_true", help="use the images thresholds were chosen on")
    parser.add_argument("--weights", help="network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    model = load_sam(options.weights)
    options.output.mkdir(parents=True, exist_ok=True)
    name = "tracking-calibration" if options.calibration else "tracking"
    records: list[dict] = []
    for number, (case, load) in enumerate(images(options)):
        records += run_image(case, load(), np.random.default_rng([options.seed, number]), options.lesions, model)
        document = {"weights": model.sha256, "summary": summary(records), "records": records}
        (options.output / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (options.output / f"{name}.md").write_text(markdown(document))
    print((options.output / f"{name}.md").read_text(encoding="utf-8"))
    return 0


def images(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Volume]]]:
    """The images by name, loaded on demand; phantoms where the evaluation images are absent."""
    data = data_folder()
    if data is None:
        for seed in range(2):
            yield f"phantom {seed}", lambda s=seed: make_phantom(s, 3.0, couch=False).ct
        return
    with open(data / "headneck_pairs.csv", newline="") as file:
        held_out = [case for row in csv.DictReader(file) for case in row.values()]
    if options.calibration:
        paths = sorted((data / "headneck").glob("*_ct.nii.gz"))
        trained = [name for path in paths if (name := path.name.removesuffix("_ct.nii.gz")) not in held_out]
        head_neck, trunk = trained[:: len(trained) // options.head_neck][: options.head_neck], CALIBRATION_TRUNK
    else:
        head_neck, trunk = held_out[: options.head_neck], WARPED_CASES
    for case in head_neck:
        yield case, lambda c=case: read_volume(data / "headneck" / f"{c}_ct.nii.gz")
    for case in trunk[: options.trunk]:
        yield case, lambda c=case: read_volume(data / "trunk" / f"{c}_ct.nii.gz")


def run_image(case: str, image: Volume, random: np.random.Generator, count: int, model: SamModel) -> list[dict]:
    """One record per lesion and follow-up of an image."""
    lesions = place_lesions(image, count, random)
    if not lesions:
        return []
    baseline = insert(image, lesions, random)
    given = [describe(baseline, lesion, number) for number, lesion in enumerate(lesions)]
    begin = time.perf_counter()
    embed_cached(baseline, model, disk=False)
    embedding = time.perf_counter() - begin
    records = []
    for cut in (False, True):
        later = make_follow_up(image, lesions, random, cut=cut)
        try:
            begin = time.perf_counter()
            embed_cached(later.image, model, disk=False)
            embedding_later = time.perf_counter() - begin
            begin = time.perf_counter()
            result = track_lesions(baseline, given, [later.image], weights=model)
            seconds = (time.perf_counter() - begin) / len(lesions)
        except Exception as error:
            raise RuntimeError(f"{case}, cut {cut}") from error
        found = compare(result, lesions, later)
        common = {"case": case, "cut": cut, "seconds": seconds, "embedding_seconds": [embedding, embedding_later]}
        records += [{**common, **record} for record in found]
        hits = [r["hit"] for r in found if r["fate"] in PRESENT and r["view"] == "inside"]
        print(f"{case:>12} cut {cut!s:>5}: {sum(hits)} of {len(hits)} hit, {seconds:.1f} s a lesion", flush=True)
    return records


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
        record = {
            "lesion": finding.lesion,
            "kind": finding.lesion.split()[0],
            "fate": later.fates[row],
            "view": later.view[row],
            "state": finding.state,
            "score": finding.score,
            "cycle_mm": finding.cycle_mm,
            "diameter_mm": 2 * float(lesion.radii.mean()),
            "hounsfield": lesion.hounsfield,
            "hit": inside and finding.state == FOUND,
            "inside": inside,
        }
        if np.isfinite(distance):
            record["distance_mm"] = distance
        if finding.measurement is not None and truth is not None:
            record["longest_mm"] = [truth.longest_mm, finding.measurement.longest_mm]
            record["volume_ml"] = [truth.volume_ml, finding.measurement.volume_ml]
        records.append(record)
    return records


def summary(records: list[dict]) -> dict:
    """The figures of the suite: over all, per fate, per kind of input and per body part."""
    groups = {"all": records}
    for key, title in (("fate", "{}"), ("kind", "given as {}")):
        for value in dict.fromkeys(r[key] for r in records):
            groups[title.format(value)] = [r for r in records if r[key] == value]
    groups["head-neck"] = [r for r in records if r["case"].startswith("hn")]
    groups["trunk"] = [r for r in records if not r["case"].startswith("hn")]
    return {name: figures(group) for name, group in groups.items() if group}


def figures(records: list[dict]) -> dict:
    """Rates in percent and errors; a figure without data is absent. Lesions cut by the image's border do not count."""
    present = [r for r in records if r["fate"] in PRESENT and r["view"] == "inside"]
    removed = [r for r in records if r["fate"] == "removed" and r["view"] == "inside"]
    outside = [r for r in records if r["view"] == "outside"]
    measured = [r for r in present if "longest_mm" in r]
    distances = [r["distance_mm"] for r in present if "distance_mm" in r and r["state"] == FOUND]
    anywhere = [r["distance_mm"] for r in present if "distance_mm" in r]
    result: dict = {"present": len(present), "removed": len(removed), "outside": len(outside)}
    if present:
        result["hit_percent"] = _percent(r["hit"] for r in present)
        result["place_inside_percent"] = _percent(r["inside"] for r in present)
        result["called_uncertain_percent"] = _percent(r["state"] == "uncertain" for r in present)
        result["called_outside_percent"] = _percent(r["state"] == NOT_IN_VIEW for r in present)
    if distances:
        result["distance_mm_mean"] = float(np.mean(distances))
        result["distance_mm_p95"] = float(np.percentile(distances, 95))
        result["distance_of_all_mm_mean"] = float(np.mean(anywhere))
    if removed:
        result["false_found_removed_percent"] = _percent(r["state"] == FOUND for r in removed)
    if outside:
        result["false_found_outside_percent"] = _percent(r["state"] == FOUND for r in outside)
        result["recognized_outside_percent"] = _percent(r["state"] == NOT_IN_VIEW for r in outside)
    if removed or outside:
        result["false_found_percent"] = _percent(r["state"] == FOUND for r in removed + outside)
    if measured:
        longest, volume = (np.array([r[key] for r in measured]) for key in ("longest_mm", "volume_ml"))
        result["measured"] = len(measured)
        result["longest_error_mm_mean"] = float(np.abs(longest[:, 1] - longest[:, 0]).mean())
        result["longest_bias_mm"] = float((longest[:, 1] - longest[:, 0]).mean())
        result["volume_error_percent_median"] = float(np.median(np.abs(volume[:, 1] / volume[:, 0] - 1)) * 100)
    result["seconds_per_lesion"] = float(np.median([r["seconds"] for r in records]))
    return result


def _percent(flags: Iterator[bool]) -> float:
    return 100.0 * float(np.mean(list(flags)))


COLUMNS = (
    ("present", "present", 0),
    ("hit %", "hit_percent", 1),
    ("mean mm", "distance_mm_mean", 2),
    ("p95 mm", "distance_mm_p95", 1),
    ("removed", "removed", 0),
    ("false-found removed %", "false_found_removed_percent", 1),
    ("outside", "outside", 0),
    ("false-found outside %", "false_found_outside_percent", 1),
    ("recognized outside %", "recognized_outside_percent", 1),
    ("longest diameter error mm", "longest_error_mm_mean", 2),
    ("bias mm", "longest_bias_mm", 2),
    ("volume error %, median", "volume_error_percent_median", 1),
    ("s per lesion", "seconds_per_lesion", 1),
)


def markdown(document: dict) -> str:
    """The page ``tracking.md``."""
    lines = [
        "# Lesion tracking",
        "",
        "Written by `samconvex benchmark --suite tracking`; do not edit.",
        "",
        f"Weights {document['weights'][:16]}. A hit is a lesion reported as found at a place inside its true box; the",
        "distances are those of the found ones to the middle of the true box. Seconds exclude the embeddings. Lesions",
        "that the border of the image cuts do not count.",
        "",
        "| | " + " | ".join(title for title, _, _ in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for name, row in document["summary"].items():
        cells = [f"{row[key]:.{digits}f}" if key in row else "" for _, key, digits in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
