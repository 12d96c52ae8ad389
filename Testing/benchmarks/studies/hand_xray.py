"""37 landmarks of real hand radiographs found from another person's hand: ``hand_xray.py``; evaluation only.

Every radiograph is once the template of each other one; then the template is chosen among all others as the paper
does, nearest to the mean (Yan et al., 2022). "Scaled" lays the template's points into the query as its image is larger.
The shipped 2D network was trained on radiographs computed from CTs of heads, necks and trunks. Millimeters are nominal.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_volume  # noqa: E402
from samconvex.anatomy.embed import embed  # noqa: E402
from samconvex.landmarks.matching import match_points  # noqa: E402
from samconvex.landmarks.templates import nearest_to_mean  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.weights.models import load_sam  # noqa: E402
from samconvex.weights.registry import DEFAULT_XRAY  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402


def read_landmarks(file: Path) -> dict[str, np.ndarray]:
    """(37, 3) mm per image, in the order of their numbers."""
    found: dict[str, dict[int, list[float]]] = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            place = [float(row["x_mm"]), float(row["y_mm"]), 0.0]
            found.setdefault(row["image"], {})[int(row["landmark"])] = place
    return {name: np.array([points[number] for number in sorted(points)]) for name, points in found.items()}


def scaled(points: np.ndarray, template: Grid, query: Grid) -> np.ndarray:
    """Points at the same share of the query's width and height."""
    voxels = template.points_to_voxels(points)
    ratio = [(m - 1) / (n - 1) if n > 1 else 1.0 for n, m in zip(template.size, query.size, strict=True)]
    return query.voxels_to_points(voxels * ratio)


def line(name: str, errors: list[np.ndarray]) -> str:
    """A row of the table."""
    values = np.concatenate(errors)
    return (
        f"| {name} | {len(errors)} | {len(values)} | {np.median(values):.1f} | {values.mean():.1f} | "
        f"{np.percentile(values, 90):.1f} | {100 * (values < 10).mean():.0f} % |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=DEFAULT_XRAY, help="2D network weights (default: the shipped ones)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None or not (data / "hand_xray").is_dir():
        parser.error("this needs the evaluation images (SAMCONVEX_DATA)")
    torch.set_num_threads(chosen.threads)
    model = load_sam(chosen.weights)
    truth = read_landmarks(data / "hand_xray" / "landmarks_mm.csv")
    images = {name: read_volume(data / "hand_xray" / f"hand{name}.nii.gz", slices=True) for name in truth}
    embeddings = {name: embed(image, model) for name, image in images.items()}
    errors: dict[str, dict[str, np.ndarray]] = {"stable": {}, "fast": {}, "scaled": {}}
    for template in truth:
        for query in truth:
            if query == template:
                continue
            name = f"{template}-{query}"
            for mode in ("stable", "fast"):
                found = match_points(embeddings[template], truth[template], embeddings[query], mode=mode)
                errors[mode][name] = np.linalg.norm(found.points - truth[query], axis=1)
            place = scaled(truth[template], images[template].grid, images[query].grid)
            errors["scaled"][name] = np.linalg.norm(place - truth[query], axis=1)
    print("| means | pairs | points | median mm | mean | 90 % | within 10 mm |\n|---|---:|---:|---:|---:|---:|---:|")
    for mode, pairs in errors.items():
        print(line(f"{mode}, every template", list(pairs.values())))
    nearest = []
    for query in truth:
        others = [name for name in truth if name != query]
        best = nearest_to_mean([embeddings[name] for name in others], [truth[name] for name in others])
        nearest.append(errors["stable"][f"{others[best]}-{query}"])
    print(line("stable, template nearest to the mean", nearest))
    if chosen.output is not None:
        listed = {mode: {name: e.tolist() for name, e in pairs.items()} for mode, pairs in errors.items()}
        chosen.output.write_text(json.dumps(listed, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
