"""Loss surfaces of features over two rotations at once (SAMConvex, Li et al., MICCAI 2023, Figs. 3 and 4).

An abdomen is compared with itself, turned about two axes and described anew, as in :mod:`benchmarks.suites.landscapes`.
A surface that an optimizer can use falls from everywhere to the middle, where nothing is turned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from samconvex import Volume, read_volume
from samconvex.space.grid import Grid
from samconvex.space.transforms import Transform
from samconvex.space.volume import resample
from samconvex.synthetic.phantom import make_phantom
from samconvex.weights.models import load_sam

from ..data.pairs import REPOSITORY, data_folder
from ..methods.runs import create_peers_environment, describe_machine
from ..results.drawing import draw
from ..results.records import commands_of, folder_of, remember_command
from .landscapes import FEATURES, SPACING_MM, Describe, body_points, change, describer, loss

SUITE = "surfaces"
# Of the patients that no network learned from.
IMAGE = "btcv14"
DEGREES = (-60.0, -40.0, -20.0, -10.0, 0.0, 10.0, 20.0, 40.0, 60.0)
AXES = "xz"


def main(arguments: Sequence[str] | None = None, publish: Callable[[Path], object] | None = None) -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(prog=f"samconvex benchmark --suite {SUITE}", description=__doc__)
    parser.add_argument("--axes", default=AXES, help=f"the two axes to turn about, in this order (default {AXES})")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a CT (default: an abdomen, else a phantom)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmark-output", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help=f"keep what is found in DIR/{SUITE}")
    if publish:
        parser.add_argument("--publish", action="store_true", help="then write RESULTS.md here from what DIR holds")
    chosen = parser.parse_args(arguments)
    if len(chosen.axes) != 2 or len(set(chosen.axes) & set("xyz")) != 2:
        parser.error(f"--axes takes two different ones of x, y and z, such as xz, not {chosen.axes!r}")
    data = data_folder()
    if chosen.image is None and data is not None:
        chosen.image = data / "abdomen" / f"{IMAGE}_ct.nii.gz"
    image = make_phantom(1, 3.0).ct if chosen.image is None else read_volume(chosen.image)
    create_peers_environment()
    folder = folder_of(chosen.output, SUITE)
    remember_command(folder, SUITE, sys.argv[1:] if arguments is None else arguments)
    grid = image.grid.canonical(SPACING_MM)
    measure(image, grid, chosen.axes, folder, describer(body_points(image), load_sam(None)), resume=chosen.resume)
    document = write_results(folder, Path(image.name).name, chosen.axes)
    draw(folder / f"{SUITE}.json")
    print("\n".join(page_lines(document)))
    if publish and chosen.publish:
        publish(chosen.output)
    return 0


def turned(grid: Grid, axes: str, degrees: Sequence[float]) -> Transform:
    """A turn about the first axis and then one about the second, through the middle of ``grid``."""
    return Transform(tuple(change(grid, "turn", axis, angle) for axis, angle in zip(axes, degrees, strict=True)))


def measure(image: Volume, grid: Grid, axes: str, folder: Path, describe: Describe, *, resume: bool) -> None:
    """One record on disk for every pair of angles."""
    still: dict[str, torch.Tensor] = {}
    for degrees in itertools.product(DEGREES, DEGREES):
        file = folder / "runs" / f"{axes}-{degrees[0]:g}-{degrees[1]:g}.json"
        if not any(degrees) or (resume and file.is_file()):
            continue
        still = still or describe(resample(image, grid))
        vectors = describe(turned(grid, axes, degrees).warp_volume(image, grid))
        losses = {name: loss(still[name], found) for name, found in vectors.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"axes": axes, "degrees": degrees, "loss": losses}))
        print(
            f"{axes} {degrees[0]:g} {degrees[1]:g}  " + "  ".join(f"{n} {v:.3f}" for n, v in losses.items()), flush=True
        )


def write_results(folder: Path, image: str, axes: str) -> dict:
    """Gather the records into surfaces.json; returns the document. Rows follow the first axis, columns the second."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in (folder / "runs").glob(f"{axes}-*.json")]
    if len(records) < len(DEGREES) ** 2 - 1:
        raise ValueError(f"{folder} holds {len(records)} of {len(DEGREES) ** 2 - 1} records; run the suite to its end")
    found = {name: np.zeros((len(DEGREES), len(DEGREES))) for name in FEATURES}
    for record in records:
        place = tuple(DEGREES.index(angle) for angle in record["degrees"])
        for name, value in record["loss"].items():
            found[name][place] = value
    document = {
        "machine": describe_machine(),
        "commands": commands_of(folder),
        "image": image,
        "axes": axes,
        "degrees": DEGREES,
        "surfaces": {name: surface.tolist() for name, surface in found.items()},
    }
    (folder / f"{SUITE}.json").write_text(json.dumps(document, indent=1))
    return document


def falls_back(surface: np.ndarray) -> np.ndarray:
    """From which places the steepest way down, from neighbor to neighbor of eight, ends in the middle: bool."""
    size = len(surface)
    middle = (size // 2, size // 2)
    reached = np.zeros(surface.shape, bool)
    for start in itertools.product(range(size), range(size)):
        place = start
        while True:
            around = [
                (place[0] + a, place[1] + b)
                for a, b in itertools.product((-1, 0, 1), repeat=2)
                if 0 <= place[0] + a < size and 0 <= place[1] + b < size
            ]
            lowest = min(around, key=lambda other: surface[other])
            if surface[lowest] >= surface[place]:
                break
            place = lowest
        reached[start] = place == middle
    return reached


def page_lines(document: dict) -> list[str]:
    """From how much of each surface the way down leads back, and how much of the rise lies near the middle."""
    degrees = document["degrees"]
    inner = [abs(angle) <= 20 for angle in degrees]
    first, second = document["axes"]
    lines = [
        f"One CT of an abdomen ({document['image']}) against itself, turned about {first} and {second} at once, "
        f"by up to {max(degrees):g} degrees each;",
        "`falls back`: share of the turns from which the steepest way down ends at no turn; `share at`: of the largest",
        "value, mean over the four turns by so much about both axes.",
        "",
        "| feature | falls back | of those within 20 degrees | share at 10, 10 | share at 20, 20 | share at 40, 40 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, values in document["surfaces"].items():
        surface = np.array(values)
        back = falls_back(surface)
        near = back[np.ix_(inner, inner)]
        shares = []
        for amount in (10.0, 20.0, 40.0):
            corners = [degrees.index(sign * amount) for sign in (-1, 1)]
            shares.append(f"{surface[np.ix_(corners, corners)].mean() / (surface.max() or 1.0):.2f}")
        lines.append(f"| {name} | {100 * back.mean():.0f} % | {100 * near.mean():.0f} % | {' | '.join(shares)} |")
    return [*lines, ""]


if __name__ == "__main__":
    raise SystemExit(main())
