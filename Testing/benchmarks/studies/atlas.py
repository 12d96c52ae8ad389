"""What an atlas of ten CTs is worth: organs on the template and through it, sharpness, drift, time.

    python Testing/benchmarks/studies/atlas.py headneck DIR [--pairs 15] [--workers N] [--picture FILE.png]
    python Testing/benchmarks/studies/atlas.py abdomen DIR

``samconvex atlas`` of ten training patients, preset fast-preview unless told. Then the Dice of their outlined organs
- on the template, between all pairs of patients that saw the organ there whole,
- in the fixed patient of some pairs, carried through the template (inverse of one map, then the other),
- in the same, by a direct registration of the two with the same preset,
- in the same, as the scanner's frames lie.
Figures go to DIR/figures.json, the atlas stays in DIR/atlas. Needs the images (SAMCONVEX_DATA or ``../shared/data``).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from itertools import combinations
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in ("Testing", "SAMConvexRegistration"):
    sys.path.insert(0, str(REPOSITORY / folder))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from samconvex.cli import main as samconvex  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.registration.register import register  # noqa: E402
from samconvex.report.metrics import common_labels, dice  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402

from benchmarks.data.pairs import EVALUATION_ABDOMENS, data_folder  # noqa: E402

PRESET = "fast-preview"
# Labels of the head and neck that an atlas of them needs; btcv07, 08 and 12 are of unusual anatomy (see its README).
WANTED = {"headneck": {"1", "2", "3", "4", "7"}, "abdomen": {"1", "2", "3", "6"}}
UNUSUAL = {"btcv07", "btcv08", "btcv12"}


def cases(data: Path, region: str, count: int = 10) -> list[str]:
    """The first training patients whose organs are outlined."""
    held: set[str] = {*EVALUATION_ABDOMENS, *UNUSUAL}
    with open(data / "headneck_pairs.csv", newline="", encoding="utf-8") as file:
        held |= {case for row in csv.reader(file) for case in row}
    with open(data / "cases.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["folder"] == region and row["case"] not in held]
    return [row["case"] for row in rows if set(row["labels"].split()) >= WANTED[region]][:count]


def mean_common(first: Volume, second: Volume) -> float:
    """Mean Dice of the labels that both hold."""
    scores = dice(first, second)
    common = common_labels(first, second)
    return float(np.mean([scores[label] for label in common])) if common else float("nan")


def on_template(folder: Path, labels: dict[str, Volume], template: Volume) -> list[float]:
    """Mean Dice between the patients' organs carried to the template, every pair."""
    carried = {
        name: Transform.load(folder / f"{name}-transform.h5").warp_nearest(own, template)
        for name, own in labels.items()
    }
    return [mean_common(carried[a], carried[b]) for a, b in combinations(carried, 2)]


def in_pairs(
    data: Path, region: str, folder: Path, labels: dict[str, Volume], count: int, preset: str
) -> dict[str, list[float]]:
    """Dice in the fixed patient: through the template, directly, and before."""
    every = list(combinations(labels, 2))
    chosen = [every[n] for n in np.random.default_rng(1).permutation(len(every))[:count]]
    found: dict[str, list[float]] = {"through": [], "direct": [], "before": [], "seconds": []}
    for fixed, moving in chosen:
        own, other = labels[fixed], labels[moving]
        through = Transform.load(folder / f"{moving}-transform.h5").after(
            Transform.load(folder / f"{fixed}-inverse.h5")
        )
        images = [read_volume(data / region / f"{name}_ct.nii.gz") for name in (fixed, moving)]
        began = time.perf_counter()
        direct = register(*images, preset=preset, affine="sam").fixed_to_moving
        found["seconds"].append(time.perf_counter() - began)
        for name, transform in (("through", through), ("direct", direct), ("before", Transform())):
            found[name].append(mean_common(own, transform.warp_nearest(other, own)))
        print(fixed, moving, {name: round(values[-1], 3) for name, values in found.items()}, flush=True)
    return found


def picture(folder: Path, data: Path, region: str, started_from: str, path: Path) -> None:
    """The image that the atlas began with, by its map, then template, standard deviation and coverage; three planes."""
    template = read_volume(folder / "template.nii.gz")
    one = Transform.load(folder / f"{started_from}-transform.h5").warp_volume(
        read_volume(data / region / f"{started_from}_ct.nii.gz"), template
    )
    deviation, coverage = (read_volume(folder / f"{name}.nii.gz") for name in ("std", "coverage"))
    columns = [
        (one, -200.0, 350.0),
        (template, -200.0, 350.0),
        (deviation, 0.0, 500.0),
        (coverage, 0.0, float(coverage.tensor.max())),
    ]
    points = Volume((template.tensor > -300).to(template.tensor.dtype), template.grid).points()
    x, y, z = template.grid.points_to_voxels(points.mean(0)[None])[0].round().astype(int)
    rows = []
    for plane in ((slice(None, None, -1), y, slice(None)), (slice(None, None, -1), slice(None), x), (z,)):
        shown = []
        for volume, low, high in columns:
            values = volume.tensor[0, 0].float().numpy()[plane]
            gray = np.clip((values - low) / (high - low) * 255, 0, 255).astype(np.uint8)
            shown.append(np.pad(gray, 2, constant_values=40))
        rows.append(np.concatenate(shown, 1))
    width = max(row.shape[1] for row in rows)
    page = np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1])), constant_values=40) for row in rows])
    Image.fromarray(page).resize((2 * page.shape[1], 2 * page.shape[0]), Image.Resampling.LANCZOS).save(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("region", choices=sorted(WANTED))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=15, help="registered directly too (default: 15 of 45)")
    parser.add_argument("--preset", default=PRESET)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    data = data_folder()
    if data is None:
        print("The images are not there; set SAMCONVEX_DATA.")
        return 2
    names = cases(data, options.region)
    options.folder.mkdir(parents=True, exist_ok=True)
    listing, folder = options.folder / "images.csv", options.folder / "atlas"
    lines = [
        f"{data}/{options.region}/{name}_ct.nii.gz,{data}/{options.region}/{name}_seg.nii.gz,{name}" for name in names
    ]
    listing.write_text("\n".join(["image,labels,name", *lines]) + "\n", encoding="utf-8")
    if not (folder / "atlas.json").is_file():
        status = samconvex(
            ["atlas", str(listing), "-o", str(folder), "--preset", options.preset, "--workers", options.workers]
        )
        if status != 0:
            return status
    document = json.loads((folder / "atlas.json").read_text(encoding="utf-8"))
    if options.picture:
        picture(folder, data, options.region, document["started_from"], options.picture)
    labels = {name: read_labels(data / options.region / f"{name}_seg.nii.gz") for name in names}
    mapped = on_template(folder, labels, read_volume(folder / "template.nii.gz"))
    figures = {
        "cases": names,
        "seconds": document["seconds"],
        "mean_displacement_mm": document["mean_displacement_mm"],
        "sharpness_per_mm": document["sharpness_per_mm"],
        "rounds": document["rounds"],
        "dice_on_template": float(np.mean(mapped)),
    }
    print(json.dumps(figures, indent=1), flush=True)
    pairs = in_pairs(data, options.region, folder, labels, options.pairs, options.preset)
    figures |= {f"pairs_{name}": float(np.mean(values)) for name, values in pairs.items() if values}
    figures["pairs"] = len(pairs["through"])
    (options.folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
