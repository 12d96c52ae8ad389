"""Loss landscapes of features under rotation and translation of one image (SAMConvex, Figs. 3 and 4, in kind).

The image is compared with itself, turned or shifted by a known amount and described anew: the mean loss over the points
of its body, for the fine and the coarse embedding, both together, and MIND. A useful loss rises steadily from zero over
the distance that a registration has to cover.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from samconvex import Volume, read_volume
from samconvex.anatomy.body import body_mask
from samconvex.anatomy.embed import embed
from samconvex.features.mind import Mind
from samconvex.space.grid import Grid
from samconvex.space.intensity import normalized_intensity
from samconvex.space.transforms import AffineTransform, Transform
from samconvex.space.volume import resample
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.warps import _rotation
from samconvex.weights.models import SamModel, load_sam

from ..data.pairs import REPOSITORY, data_folder
from ..methods.runs import create_peers_environment, describe_machine
from ..results.drawing import draw
from ..results.records import commands_of, folder_of, remember_command

FEATURES = ("SAM fine", "SAM coarse", "SAM", "MIND")
SHIFTS_MM = (2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 80.0)
TURNS_DEGREES = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
KINDS = {"shift": (SHIFTS_MM, "mm"), "turn": (TURNS_DEGREES, "degrees")}
SPACING_MM = 2.0
POINTS = 4000
IMAGE = "hn024"

Describe = Callable[[Volume], dict[str, torch.Tensor]]


def main(arguments: Sequence[str] | None = None, publish: Callable[[Path], object] | None = None) -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(prog="samconvex benchmark --suite landscapes", description=__doc__)
    parser.add_argument("--axes", default="xz", help="axes to shift along and turn about (default xz)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a CT (default: a head-neck CT, else a phantom)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep what is found in DIR/landscapes")
    if publish:
        parser.add_argument("--publish", action="store_true", help="then write RESULTS.md here from what DIR holds")
    chosen = parser.parse_args(arguments)
    data = data_folder()
    if chosen.image is None and data is not None:
        chosen.image = data / "headneck" / f"{IMAGE}_ct.nii.gz"
    image = make_phantom(1, 3.0).ct if chosen.image is None else read_volume(chosen.image)
    create_peers_environment()
    folder = folder_of(chosen.output, "landscapes")
    remember_command(folder, "landscapes", sys.argv[1:] if arguments is None else arguments)
    grid = image.grid.canonical(SPACING_MM)
    measure(image, grid, chosen.axes, folder, describer(body_points(image), load_sam(None)), resume=chosen.resume)
    document = write_results(folder, image.name)
    draw(folder / "landscapes.json")
    print("\n".join(page_lines(document)))
    if publish and chosen.publish:
        publish(chosen.output)
    return 0


def body_points(image: Volume) -> np.ndarray:
    """About 4000 points of the body on a lattice, LPS mm."""
    body = body_mask(image)
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    points = points[image.grid.contains(points)]
    return points[:: max(1, len(points) // POINTS)]


def describer(points: np.ndarray, model: SamModel) -> Describe:
    """Descriptors (N, C) of an image at ``points``; squared distances of the parts of SAM are twice a cosine loss."""

    def describe(image: Volume) -> dict[str, torch.Tensor]:
        embedding = embed(image, model)
        joined = embedding.descriptors(points)
        count = embedding.fine.tensor.shape[1]
        mind = Mind()(image.with_tensor(normalized_intensity(image)))
        nearest = np.rint(mind.grid.points_to_voxels(points)).astype(int)
        x, y, z = (np.clip(column, 0, n - 1) for column, n in zip(nearest.T, mind.grid.size, strict=True))
        return {
            # The joined vectors are of unit length, each part by itself of half that, squared.
            "SAM fine": joined[:, :count] * 2**0.5,
            "SAM coarse": joined[:, count:] * 2**0.5,
            "SAM": joined,
            "MIND": mind.tensor[0][:, z, y, x].T,
        }

    return describe


def measure(image: Volume, grid: Grid, axes: str, folder: Path, describe: Describe, *, resume: bool) -> None:
    """One record on disk for every amount, both senses together."""
    still: dict[str, torch.Tensor] = {}
    for kind, (amounts, unit) in KINDS.items():
        for axis in axes:
            for amount in amounts:
                file = folder / "runs" / f"{kind}-{axis}-{amount:g}.json"
                if resume and file.is_file():
                    continue
                still = still or describe(resample(image, grid))
                losses = []
                for sense in (amount, -amount):
                    moved = Transform((change(grid, kind, axis, sense),)).warp_volume(image, grid)
                    losses.append({name: loss(still[name], vectors) for name, vectors in describe(moved).items()})
                mean = {name: float(np.mean([one[name] for one in losses])) for name in still}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"kind": kind, "axis": axis, "amount": amount, "loss": mean}))
                print(
                    f"{kind} {axis} {amount:g} {unit}  " + "  ".join(f"{n} {v:.3f}" for n, v in mean.items()),
                    flush=True,
                )


def change(grid: Grid, kind: str, axis: str, amount: float) -> AffineTransform:
    """A shift in mm along an axis, or a turn in degrees about one through the middle of ``grid``."""
    along = np.eye(3)["xyz".index(axis)]
    if kind == "shift":
        return AffineTransform(np.eye(3), amount * along)
    return AffineTransform.about(grid.center, _rotation(np.radians(amount) * along), np.zeros(3))


def loss(first: torch.Tensor, second: torch.Tensor) -> float:
    """Half the mean squared distance of (N, C) descriptors: of unit vectors, 1 - cosine."""
    return 0.5 * float((first.float() - second.float()).square().sum(1).mean())


def write_results(folder: Path, image: str) -> dict:
    """Gather the records into landscapes.json; returns the document."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in (folder / "runs").glob("*.json")]
    records.sort(key=lambda record: (record["kind"], record["axis"], record["amount"]))
    document = {
        "machine": describe_machine(),
        "commands": commands_of(folder),
        "image": image,
        "landscapes": records,
    }
    (folder / "landscapes.json").write_text(json.dumps(document, indent=1))
    return document


def curve(records: list[dict], kind: str, feature: str) -> tuple[list[float], list[float]]:
    """Amounts and the loss as a share of its largest value, mean over axes; both start with 0."""
    members = [record for record in records if record["kind"] == kind]
    amounts = sorted({record["amount"] for record in members})
    losses = [
        float(np.mean([record["loss"][feature] for record in members if record["amount"] == amount]))
        for amount in amounts
    ]
    top = max(losses, default=1.0) or 1.0
    return [0.0, *amounts], [0.0, *(value / top for value in losses)]


def steady_to(amounts: Sequence[float], losses: Sequence[float], least: float = 0.005) -> float:
    """The amount up to which every step raises the loss by at least ``least`` of its largest value."""
    reached = 0.0
    for amount, value, before in zip(amounts[1:], losses[1:], losses, strict=False):
        if value - before < least:
            break
        reached = amount
    return reached


def page_lines(document: dict) -> list[str]:
    """How far each loss rises steadily, and how much of the rise is within the first steps."""
    records = document["landscapes"]
    lines = [
        "One CT against itself, shifted or turned; loss as a share of its largest value (mean over axes and both",
        "senses). `rises to`: the amount up to which every step adds at least half a percent: what an optimizer can",
        "follow back.",
        "",
        "| feature | shift: rises to | share at 4 mm | share at 16 mm | turn: rises to | share at 10 degrees |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for feature in FEATURES:
        shifts, turns = curve(records, "shift", feature), curve(records, "turn", feature)
        at = [f"{value:.2f}" for value in (_at(shifts, 4.0), _at(shifts, 16.0), _at(turns, 10.0))]
        lines.append(
            f"| {feature} | {steady_to(*shifts):g} mm | {at[0]} | {at[1]} | {steady_to(*turns):g} degrees | {at[2]} |"
        )
    return [*lines, ""]


def _at(points: tuple[list[float], list[float]], amount: float) -> float:
    return float(np.interp(amount, *points))


if __name__ == "__main__":
    raise SystemExit(main())
