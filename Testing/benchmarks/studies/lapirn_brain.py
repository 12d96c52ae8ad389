"""The published LapIRN on a brain under a known warp, in both readings of its arrays: ``lapirn_brain.py WEIGHTS ...``.

One skull-stripped T1 at 2 mm against itself warped: what is left of the warp inside the head, and the correlation.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [
    str(Path(__file__).resolve().parents[2]),
    str(Path(__file__).resolve().parents[3] / "SAMConvexRegistration"),
]

from samconvex import read_volume  # noqa: E402
from samconvex.anatomy.body import body_mask  # noqa: E402
from samconvex.deform.feed_forward import predicted  # noqa: E402
from samconvex.deform.scene import Scene, View  # noqa: E402
from samconvex.features.mind import Mind  # noqa: E402
from samconvex.networks.lapirn import AXES, LapIRN  # noqa: E402
from samconvex.registration.solve import normalized_volume  # noqa: E402
from samconvex.space.transforms import Transform  # noqa: E402
from samconvex.space.volume import average_to  # noqa: E402
from samconvex.synthetic.warps import random_warp  # noqa: E402
from samconvex.training.lapirn import local_correlation  # noqa: E402
from samconvex.weights.models import load_network  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402


def main() -> int:
    """Print a line for each file and reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="+", help="LapIRN_disp_fea7.pth, LapIRN_diff_fea7.pth or other weights")
    parser.add_argument("--warp", type=float, default=10.0, metavar="MM", help="peak of the warp's bumps (default 10)")
    parser.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="voxel size (default 2)")
    chosen = parser.parse_args()
    data = data_folder()
    if data is None:
        parser.error("this needs the images (SAMCONVEX_DATA)")
    fixed = average_to(read_volume(data / "brain" / "vxm01_mr.nii.gz"), chosen.spacing)
    moving, truth = random_warp(fixed, chosen.warp, 3, affine=False)
    head = body_mask(fixed)
    points = head.grid.voxels_to_points(torch.nonzero(head.tensor[0, 0] > 0).flip(1).double().numpy())
    box = np.stack([points.min(0), points.max(0)])
    points = points[::37]
    scene = Scene(normalized_volume(fixed), normalized_volume(moving), Transform(), box)
    wanted = truth.map_points(points)
    print(f"start: {np.linalg.norm(wanted - points, axis=1).mean():.2f} mm")
    for weights in chosen.weights:
        network = load_network(LapIRN, weights)
        network.spacing_mm = chosen.spacing
        for axes in AXES:
            network.axes = axes
            began = time.perf_counter()
            field = predicted(network, scene, lambda name: Mind(), lambda fraction: None)
            seconds = time.perf_counter() - began
            seen = [View(scene, "fixed"), View(scene, "moving", field)]
            alike = float(local_correlation(*(view.image(field.grid, 1).tensor for view in seen), 7))
            left = np.linalg.norm(field.map_points(points) - wanted, axis=1).mean()
            print(f"{Path(weights).name}, {axes}: {left:.2f} mm, correlation {alike:.3f}, {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
