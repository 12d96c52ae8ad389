"""Where in an MR a place of the CT is found: heat maps of MIND and DNS as a picture, ``similarity_maps.py -o FILE``.

MASR-Net (Mok et al., CVPR 2024, Figures 10 and 12, in kind): MR and CT of a patient in one frame, a place of the CT
against all of the MR. A row a place: CT, MR, and how alike MIND and DNS find every voxel of that slice; bright: alike.
It also tells how far, in the whole MR, the most alike voxel lies from the right one, over many places of the body.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_volume  # noqa: E402
from samconvex.anatomy.body import body_mask  # noqa: E402
from samconvex.features.dns import DnsExtractor  # noqa: E402
from samconvex.features.mind import Mind  # noqa: E402
from samconvex.networks.masr import MASRNet  # noqa: E402
from samconvex.space.grid import Grid  # noqa: E402
from samconvex.space.intensity import normalized_intensity  # noqa: E402
from samconvex.space.volume import Volume, resample  # noqa: E402
from samconvex.weights.models import load_network  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

ROWS = 3
CROSS = 3
SCALE = 3
NEAR_MM = 6.0


def similarity(query: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Minus half the squared distance of a descriptor (C,) to every one of (C, D, H, W); 0 is the same."""
    return -0.5 * (maps - query[:, None, None, None]).square().sum(0)


def tile(values: torch.Tensor, row: int, column: int) -> Image.Image:
    """A slice (H, W) from its 2nd to its 99.8th percentile, a cross at a place."""
    low, high = torch.quantile(values.float().flatten(), torch.tensor([0.02, 0.998])).tolist()
    gray = ((values.float() - low) / max(high - low, 1e-6)).clamp(0, 1).mul(255).byte()
    pixels = gray[..., None].repeat(1, 1, 3).numpy()
    for step in (*range(-CROSS, -1), *range(2, CROSS + 1)):
        for y, x in ((row + step, column), (row, column + step)):
            if 0 <= y < pixels.shape[0] and 0 <= x < pixels.shape[1]:
                pixels[y, x] = (255, 60, 60)
    return Image.fromarray(pixels).resize((SCALE * pixels.shape[1], SCALE * pixels.shape[0]), Image.NEAREST)


def picture(images: list[torch.Tensor], maps: dict[str, list[torch.Tensor]], places: np.ndarray) -> Image.Image:
    """Rows of tiles for (n, 3) voxels z, y, x: both images, and every descriptor's similarity in that slice.

    Args:
        images: fixed and moving (D, H, W).
        maps: of each descriptor, of the fixed and the moving image, (C, D, H, W).
    """
    rows = []
    for z, y, x in places.tolist():
        shown = [image[z] for image in images]
        shown += [similarity(fixed[:, z, y, x], moving)[z] for fixed, moving in maps.values()]
        rows.append([tile(values, y, x) for values in shown])
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (len(rows[0]) * width, len(rows) * height))
    for r, tiles in enumerate(rows):
        for c, one in enumerate(tiles):
            sheet.paste(one, (c * width, r * height))
    return sheet


def distances(fixed: torch.Tensor, moving: torch.Tensor, places: np.ndarray, spacing: float) -> np.ndarray:
    """(n,) mm from each place to the most alike voxel of the moving image."""
    found = []
    for z, y, x in places.tolist():
        best = int(similarity(fixed[:, z, y, x], moving).argmax())
        found.append(np.linalg.norm(np.array(np.unravel_index(best, moving.shape[1:])) - (z, y, x)) * spacing)
    return np.array(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["sts009", "sts010"], help="patients of mrct; the first is drawn")
    parser.add_argument("--points", type=int, default=200, metavar="N", help="places of each body that are looked for")
    parser.add_argument("--spacing", type=float, default=3.0, metavar="MM")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.png")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    torch.set_num_threads(chosen.threads)
    extractors = {"MIND": Mind(), "DNS": DnsExtractor(load_network(MASRNet, None))}
    far: dict[str, list[np.ndarray]] = {name: [] for name in extractors}
    for number, case in enumerate(chosen.cases):
        ct, mr = (read_volume(data / "mrct" / f"{case}_{kind}.nii.gz") for kind in ("ct", "mr"))
        body = body_mask(mr)
        inside = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
        grid = Grid.covering(inside, chosen.spacing, margin_mm=10.0)
        mask = resample(body, grid, mode="nearest").tensor[0, 0] > 0
        pair: list[Volume] = [
            resample(volume.with_tensor(normalized_intensity(volume)), grid, fill=0.0) for volume in (ct, mr)
        ]
        maps = {name: [extractor(v).tensor[0].float() for v in pair] for name, extractor in extractors.items()}
        where = mask.nonzero().numpy()
        places = where[np.random.default_rng(number).permutation(len(where))[: chosen.points]]
        for name, (fixed, moving) in maps.items():
            far[name].append(distances(fixed, moving, places, chosen.spacing))
        if number == 0:
            picture([volume.tensor[0, 0] for volume in pair], maps, places[:ROWS]).save(chosen.output)
    for name, values in far.items():
        every = np.concatenate(values)
        near = ", ".join(f"{100 * (v < NEAR_MM).mean():.0f} %" for v in values)
        print(f"{name}: {len(every)} places, median {np.median(every):.0f} mm off, within {NEAR_MM:g} mm: {near}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
