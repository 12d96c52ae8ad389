"""Training images brought into one frame, as an affine stage would: ``aligned_images.py --template hn119 -o DIR``.

LapIRN and SAM-VoxelMorph learn what an affine leaves over. Every CT of a folder, and its label map, is brought onto the
template's box by SAM-affine; those that are not surely aligned are left out. Evaluation patients are never read. What
is there already stays, so a second call goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_labels, read_volume, write_volume  # noqa: E402
from samconvex.align.by_embeddings import CONFIDENT, sam_affine  # noqa: E402
from samconvex.anatomy.embed import embed  # noqa: E402
from samconvex.errors import SamConvexError  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402
from samconvex.weights.models import load_sam  # noqa: E402

from benchmarks.data.pairs import EVALUATION_ABDOMENS, WARPED_CASES, data_folder  # noqa: E402


def evaluation_patients(data: Path) -> set[str]:
    """Names that are never trained on."""
    with open(data / "headneck_pairs.csv", newline="") as file:
        kept = {name for row in csv.DictReader(file) for name in row.values()}
    return kept | set(EVALUATION_ABDOMENS) | set(WARPED_CASES)


def box_around(center: np.ndarray, spacing: float, shape: tuple[int, int, int]) -> Grid:
    """Grid of ``shape`` (z, y, x) voxels around a point, LPS mm."""
    size = (shape[2], shape[1], shape[0])
    low = [float(c - (n - 1) / 2 * spacing) for c, n in zip(center, size, strict=True)]
    return Grid(size, (spacing,) * 3, (low[0], low[1], low[2]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--template", default="hn119", metavar="NAME", help="whose frame all are brought to")
    parser.add_argument("--folder", default="headneck", help="folder of the images (headneck or abdomen)")
    parser.add_argument("--spacing", type=float, default=4.0, metavar="MM")
    parser.add_argument("--shape", type=int, nargs=3, default=(88, 64, 104), metavar="N", help="box, z y x")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="at most so many images")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    torch.set_num_threads(1)
    folder, output = data / chosen.folder, chosen.output / chosen.folder
    output.mkdir(parents=True, exist_ok=True)
    model = load_sam(None)
    first = read_volume(folder / f"{chosen.template}_ct.nii.gz")
    template = embed(first, model)
    grid = box_around(first.grid.center, chosen.spacing, tuple(chosen.shape))
    kept = evaluation_patients(data)
    names = [p.name.removesuffix("_ct.nii.gz") for p in sorted(folder.glob("*_ct.nii.gz"))]
    for name in [name for name in names if name not in kept][: chosen.count]:
        target = output / f"{name}_ct.nii.gz"
        if target.is_file():
            continue
        image = read_volume(folder / f"{name}_ct.nii.gz")
        try:
            affine, details = sam_affine(template, embed(image, model))
        except SamConvexError as error:
            affine, details = None, {"confidence": 0.0, "reason": str(error)}
        if affine is None or details["confidence"] < CONFIDENT:
            print(f"{name}: left out ({details['reason']})", flush=True)
            continue
        there = Transform((affine,))
        write_volume(there.warp_labels(read_labels(folder / f"{name}_seg.nii.gz"), grid), output / f"{name}_seg.nii.gz")
        write_volume(there.warp_volume(image, grid), target)
        print(f"{name}: confidence {details['confidence']:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
