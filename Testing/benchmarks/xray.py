"""X-ray suite: landmarks matched between radiographs computed from CTs, whose place is known exactly.

``samconvex benchmark --suite xray --weights FILE`` writes ``xray.md`` and ``xray.json``. Every head-neck evaluation
pair is projected from the front and from the side, slightly turned. The centroids of the organs (projected) are matched
from one patient to the other, and from one view of a patient to another. Lengths are those in the isocenter's plane.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from samconvex.features.sam import SamEmbedding, embed
from samconvex.matching import match_points
from samconvex.phantom import make_phantom
from samconvex.radiograph import Projection, radiograph
from samconvex.volume import Volume, body_mask, read_labels, read_volume, resample
from samconvex.weights import DEFAULT_XRAY, SamModel, load_sam

from .label_landmarks import HEAD_NECK, label_landmarks
from .pairs import REPOSITORY, data_folder

VIEWS = {"front": 0.0, "side": 90.0}
SOURCE_MM = 1500.0
PIXEL_MM = 1.0
HIT_MM = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; returns the exit status."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite xray", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmark-output")
    parser.add_argument("--pairs", type=int, default=20, help="head-neck pairs (default: all 20)")
    parser.add_argument("--weights", default=DEFAULT_XRAY, help="2D network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = load_sam(options.weights)
    random = np.random.default_rng(0)
    records: list[dict] = []
    for name, patients in patient_pairs(options.pairs):
        records += run_pair(name, patients, model, random)
    document = {"weights": model.sha256, "summary": summary(records), "records": records}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "xray.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "xray.md").write_text(markdown(document))
    print(markdown(document))
    return 0


def patient_pairs(count: int) -> Iterator[tuple[str, list[tuple[Volume, dict[str, np.ndarray]]]]]:
    """CTs of two patients with their landmarks; invented patients where the evaluation images are absent."""
    data = data_folder()
    if data is None:
        phantoms = [make_phantom(seed, 4.0, couch=False) for seed in range(2)]
        yield "phantoms", [(phantom.ct, label_landmarks(phantom.labels, None)) for phantom in phantoms]
        return
    folder = data / "headneck"
    for row in (data / "headneck_pairs.csv").read_text().split()[1 : count + 1]:
        yield row.replace(",", "-"), [
            (
                read_volume(folder / f"{case}_ct.nii.gz"),
                label_landmarks(read_labels(folder / f"{case}_seg.nii.gz"), HEAD_NECK),
            )
            for case in row.split(",")
        ]


def run_pair(
    name: str, patients: list[tuple[Volume, dict[str, np.ndarray]]], model: SamModel, random: np.random.Generator
) -> list[dict]:
    """One record per matched landmark of a pair."""
    records = []
    bodies = [_body_only(volume) for volume, _ in patients]
    for view, turn in VIEWS.items():
        shown = [[_look(body, turn, random, model) for _ in range(2)] for body in bodies]
        for kind, (first, one), (second, other) in (
            ("patients", (0, 0), (1, 0)),
            ("views", (0, 0), (0, 1)),
        ):
            here, there = patients[first][1], patients[second][1]
            common = sorted(key for key in here if key in there and key.endswith("center"))
            if not common:
                continue
            (template, projection), (query, target) = shown[first][one], shown[second][other]
            points = projection.project(np.stack([here[key] for key in common]))
            truth = target.project(np.stack([there[key] for key in common]))
            matches = match_points(template, points, query)
            errors = np.linalg.norm(matches.points - truth, axis=1)
            records += [
                {
                    "pair": name, "view": view, "between": kind, "name": key, "error": float(errors[row]),
                    "score": float(matches.score[row]), "cycle_mm": float(matches.cycle_mm[row]),
                    "found": bool(matches.found[row]),
                }
                for row, key in enumerate(common)
            ]  # fmt: skip
            print(f"{name:>14} {view:<6} {kind:<9} median {np.median(errors):6.2f} max {errors.max():6.1f}", flush=True)
    return records


def _body_only(volume: Volume) -> Volume:
    """Without couch and mask, as an X-ray detector sees a standing patient."""
    inside = resample(body_mask(volume), volume.grid, mode="nearest").tensor > 0
    return volume.with_tensor(volume.as_float().clamp(min=-1000).masked_fill(~inside, -1000.0))


def _look(
    body: Volume, turn: float, random: np.random.Generator, model: SamModel
) -> tuple[SamEmbedding, Projection]:
    """The embedding of a radiograph of a patient who stands a little askew, and its projection."""
    angles = turn + random.uniform(-10, 10), random.uniform(-5, 5), random.uniform(-3, 3)
    projection = Projection.at_angles(body.grid.center, *angles, source_mm=SOURCE_MM)
    image = radiograph(body, projection, projection.grid(body.grid.corners(), PIXEL_MM))
    return embed(image, model), projection


def summary(records: list[dict]) -> dict[str, dict]:
    """Errors by view and kind of pair."""
    groups: dict[str, list[float]] = {}
    for record in records:
        for key in (f"between {record['between']}", f"between {record['between']}, {record['view']}"):
            groups.setdefault(key, []).append(record["error"])
    return {
        key: {
            "points": len(values), "mean": float(np.mean(values)), "median": float(np.median(values)),
            "p90": float(np.percentile(values, 90)), "max": float(np.max(values)),
            "hit_percent": 100 * float(np.mean(np.array(values) < HIT_MM)),
        }
        for key, values in sorted(groups.items())
    }  # fmt: skip


def markdown(document: dict) -> str:
    """The page ``xray.md``."""
    lines = [
        "# Landmarks in X-ray images", "", "Written by `samconvex benchmark --suite xray`; do not edit.", "",
        f"Weights {document['weights'][:16]}. Organ centroids of head-neck CTs, projected; errors in mm in the image;",
        f"hit: within {HIT_MM:.0f} mm.", "",
        "| | points | mean | median | p90 | max | hit % |", "|---|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, row in document["summary"].items():
        numbers = " | ".join(f"{row[key]:.2f}" for key in ("mean", "median", "p90", "max"))
        lines.append(f"| {name} | {row['points']} | {numbers} | {row['hit_percent']:.0f} |")
    return "\n".join(lines) + "\n"
