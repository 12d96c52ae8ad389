"""How well organs of head and neck are found in patients never trained on.

``python Testing/benchmarks/studies/organs.py``: Dice of the probabilities (above 0.5) with the label maps on their own
grids, per organ over the cases that label it. Of tubular organs only the slices from the last contour upwards count:
below it nobody drew them. Then the volume that is taken for such organs in scans of other body parts, and the time and
memory of it all.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.organs import organ_probabilities  # noqa: E402
from samconvex.features.organs import SemanticPair  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.memory import peak_memory_mib  # noqa: E402
from samconvex.report.metrics import dice  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402
from samconvex.weights.models import SemanticModel, load_semantic  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "semantic_ct.json"
TUBULAR = (2, 5)
ELSEWHERE = ("lidc0001", "rad_lung1", "rad_lung2", "ts_example")


def case_dice(volume: Volume, labels: Volume, model: SemanticModel) -> tuple[dict[str, float], float]:
    """Dice of each organ that is labeled, and the processor's seconds that finding all of them took."""
    begin = time.process_time()
    found = organ_probabilities(volume, model)
    seconds = time.process_time() - begin
    grid = labels.grid
    points = grid.voxel_centers(reference=grid.center)
    probabilities = SemanticPair(found, found).at("fixed", points, grid.center)
    # Slices run along z in head-neck planning CTs, as in training.
    scores = {}
    for number, organ in enumerate(model.network.organs, 1):
        truth = labels.tensor[0, 0] == number
        slices = truth.flatten(1).any(1).nonzero()[:, 0]
        if not len(slices):
            continue
        first = int(slices[0]) if number in TUBULAR else 0
        masks = [m[first:].to(torch.uint8)[None, None] for m in (truth, probabilities[0, number - 1] > 0.5)]
        scores[organ] = dice(*(Volume(mask, grid.cropped((0, 0, first), mask.shape[:1:-1])) for mask in masks))[1]
    return scores, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="name or file; default the shipped ones")
    parser.add_argument("--cases", type=int, default=1000, help="so many of each group")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        print("the evaluation images are absent; set SAMCONVEX_DATA")
        return 2
    with open(data / "headneck_pairs.csv", newline="") as file:
        evaluation = sorted({case for row in csv.DictReader(file) for case in row.values()})
    groups = {"evaluation": evaluation, "held out": json.loads(CONFIG.read_text(encoding="utf-8"))["validation"]}
    model = load_semantic(chosen.weights)
    figures: dict = {"threads": torch.get_num_threads(), "weights": model.sha256, "organs": {}}
    every: list[float] = []
    for group, names in groups.items():
        scores: dict[str, list[float]] = {}
        for name in names[: chosen.cases]:
            case = data / "headneck" / name
            volume, labels = read_volume(f"{case}_ct.nii.gz"), read_labels(f"{case}_seg.nii.gz")
            found, seconds = case_dice(volume, labels, model)
            every.append(seconds)
            for organ, score in found.items():
                scores.setdefault(organ, []).append(score)
            figures["organs"][group] = {
                organ: {"n": len(v), "mean": float(np.mean(v)), "worst": min(v), "missed": sum(x < 0.1 for x in v)}
                for organ, v in scores.items()
            }
            figures["processor_seconds"] = {"median": float(np.median(every)), "worst": max(every)}
            _write(figures, chosen.output)
    figures["peak_memory_mib"] = peak_memory_mib()
    figures["elsewhere_ml"] = {}
    for name in ELSEWHERE[: chosen.cases]:
        found_map = organ_probabilities(read_volume(data / "trunk" / f"{name}_ct.nii.gz"), model)
        milliliters = (found_map.tensor[0] > 0.5).flatten(1).sum(1) * np.prod(found_map.grid.spacing) / 1000
        figures["elsewhere_ml"][name] = dict(zip(model.network.organs, milliliters.tolist(), strict=True))
    _write(figures, chosen.output)
    print(json.dumps(figures, indent=1))
    return 0


def _write(figures: dict, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
