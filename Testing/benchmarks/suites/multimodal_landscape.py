"""Loss landscapes across modalities: how NMI, MIND and DNS change as an aligned MR is rotated against its CT.

``python Testing/benchmarks/suites/multimodal_landscape.py --output DIR``: for each angle about each axis the loss over
the voxels that both bodies cover, scaled to [0, 1] within the curve (MASR-Net, Mok et al., CVPR 2024, Figure 13, in
kind).
Writes ``landscape.json``, and ``landscape.png`` where the peers' environment, which has matplotlib, exists.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

MEASURES = ("NMI", "MIND", "DNS")
AXES = ("pitch", "roll", "yaw")


def joint_entropy_loss(first: np.ndarray, second: np.ndarray, bins: int = 32) -> float:
    """Minus the normalized mutual information, (H(a) + H(b)) / H(a, b), of values in [0, 1]."""
    joint, _, _ = np.histogram2d(first, second, bins=bins, range=((0, 1), (0, 1)))
    joint /= joint.sum()

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    return -(entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint.ravel())


def landscape(case: str, data: Path, angles: list[float], weights: str | None) -> dict:
    """Losses by measure and axis for a patient of ``mrct``."""
    import torch
    from samconvex import read_volume
    from samconvex.anatomy.body import body_mask
    from samconvex.features.dns import DnsExtractor
    from samconvex.features.mind import Mind
    from samconvex.networks.masr import MASRNet
    from samconvex.space.grid import Grid
    from samconvex.space.intensity import normalized_intensity
    from samconvex.space.linear import rotation
    from samconvex.space.transforms import AffineTransform, Transform
    from samconvex.space.volume import resample
    from samconvex.weights.models import load_network

    ct, mr = (read_volume(data / "mrct" / f"{case}_{kind}.nii.gz") for kind in ("ct", "mr"))
    body = body_mask(mr)
    places = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    grid = Grid.covering(places, 2.0, margin_mm=10.0)
    weight = resample(body, grid, mode="nearest").tensor[0, 0] > 0
    ct, mr = (volume.with_tensor(normalized_intensity(volume)) for volume in (ct, mr))
    fixed = resample(ct, grid, fill=0.0)
    extractors = {"MIND": Mind(), "DNS": DnsExtractor(load_network(MASRNet, weights))}
    described = {name: extractor(fixed).tensor[0] for name, extractor in extractors.items()}
    losses: dict[str, dict[str, list[float]]] = {name: {axis: [] for axis in AXES} for name in MEASURES}
    for number, axis in enumerate(AXES):
        for angle in angles:
            turn = [0.0, 0.0, 0.0]
            turn[number] = float(np.radians(angle))
            rotation = Transform((AffineTransform.about(grid.center, rotation(*turn), np.zeros(3)),))
            moved = rotation.warp_volume(mr, grid, background=0.0)
            values = (image.tensor[0, 0][weight].numpy() for image in (fixed, moved))
            losses["NMI"][axis].append(joint_entropy_loss(*values))
            for name, extractor in extractors.items():
                difference = (extractor(moved).tensor[0] - described[name])[:, weight]
                losses[name][axis].append(float(difference.square().sum(0).mean()))
        print(axis, flush=True)
    return {"case": case, "angles": angles, "losses": losses, "torch": torch.__version__}


def landscape_lines(found: dict) -> list[str]:
    """What a results page says of a landscape."""
    angles = np.array(found["angles"])
    lines = [
        "## Loss landscapes under rotation",
        "",
        f"Patient {found['case']}: the MR turned against its CT about each axis, the loss over the voxels that both",
        f"bodies cover, every {angles[1] - angles[0]:g} degrees up to {angles.max():g}. `lowest at`: where the loss is",
        "least (0 is right). `rises to`: how far from there it grows on both sides without a step back. `depth`: its",
        "rise within 8 degrees as a share of its range. Made by `Testing/benchmarks/suites/multimodal_landscape.py`.",
        "",
        "| measure | axis | lowest at | rises to | depth |",
        "|---|---|---:|---:|---:|",
    ]
    for name in MEASURES:
        for axis in AXES:
            losses = np.array(found["losses"][name][axis])
            lowest = int(losses.argmin())
            reach = min(_rising(losses[lowest:]), _rising(losses[lowest::-1]))
            near = np.abs(angles - angles[lowest]) <= 8.0
            depth = (losses[near].max() - losses.min()) / max(float(np.ptp(losses)), 1e-12)
            step = angles[1] - angles[0]
            lines.append(f"| {name} | {axis} | {angles[lowest]:g} | {reach * step:g} | {depth:.2f} |")
    return lines


def _rising(losses: np.ndarray) -> int:
    """How many steps in a row go up from the first."""
    down = np.flatnonzero(np.diff(losses) <= 0)
    return int(down[0]) if len(down) else len(losses) - 1


def draw(source: Path, target: Path) -> None:
    """One panel per axis, a line per measure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = json.loads(source.read_text(encoding="utf-8"))
    figure, axes = pyplot.subplots(1, len(AXES), figsize=(12, 3.6), sharey=True)
    for axis, panel in zip(AXES, axes, strict=True):
        for name in MEASURES:
            losses = np.array(found["losses"][name][axis])
            panel.plot(found["angles"], (losses - losses.min()) / max(float(np.ptp(losses)), 1e-9), label=name)
        panel.set_title(axis)
        panel.set_xlabel("rotation of the MR, degrees")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("loss, scaled")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(target, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="sts001", help="patient of mrct, never trained on")
    parser.add_argument("--step", type=float, default=8.0, help="degrees between samples")
    parser.add_argument("--weights", help="MASR weights instead of the shipped ones")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--draw", action="store_true", help="only draw what DIR holds")
    chosen = parser.parse_args()
    source, target = chosen.output / "landscape.json", chosen.output / "landscape.png"
    if chosen.draw:
        draw(source, target)
        return
    repository = Path(__file__).resolve().parents[3]
    sys.path[:0] = [str(repository / "SAMConvexRegistration"), str(repository / "Testing")]
    from benchmarks.data.pairs import data_folder
    from benchmarks.methods.runs import PEERS_ENVIRONMENT, peers_python

    data = data_folder()
    if data is None:
        parser.error("this needs the evaluation images (SAMCONVEX_DATA)")
    angles = [float(angle) for angle in np.arange(-32, 32 + chosen.step / 2, chosen.step)]
    chosen.output.mkdir(parents=True, exist_ok=True)
    source.write_text(json.dumps(landscape(chosen.case, data, angles, chosen.weights), indent=1))
    if PEERS_ENVIRONMENT.exists():
        subprocess.run([str(peers_python()), __file__, "--draw", "--output", str(chosen.output)], check=True)


if __name__ == "__main__":
    main()
