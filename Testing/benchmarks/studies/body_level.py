"""How exactly the level in the body is found, and which wrong orientations, in patients that the reference lacks.

``python Testing/benchmarks/studies/body_level.py``: of every patient of ``training/configs/levels_ct.json`` the levels
by a reference built from the other patients, whole and in slabs of 70 to 140 mm; then, for some of them, the image with
a header that says feet first, mirrored left to right, or turned by a quarter, embedded anew. ``--final`` asks the
shipped reference about the evaluation patients, whose landmarks by label map say whether levels agree between them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "SAMConvexRegistration"), str(REPOSITORY / "Testing")]

from samconvex.anatomy.cache import embed_cached  # noqa: E402
from samconvex.anatomy.level import Anatomy, BodyReference, anatomy_of, judged, reference_of  # noqa: E402
from samconvex.io.images import read_labels, read_volume  # noqa: E402
from samconvex.space.volume import Volume  # noqa: E402
from samconvex.training.data.cases import case_name, find_cases  # noqa: E402
from samconvex.training.levels import LevelSettings, PlacedCase, collect, content  # noqa: E402
from samconvex.training.loop import read_settings  # noqa: E402

from benchmarks.data.pairs import data_folder  # noqa: E402

CONFIG = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs" / "levels_ct.json"
SLABS = 4
# Scans of one patient.
SAME = {"acrin001a": "acrin001", "acrin001b": "acrin001"}
TURNS = {
    "upright": np.eye(3),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "mirrored left to right": np.diag([-1.0, 1.0, 1.0]),
    "turned by 90 deg about x": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "turned by 90 deg about y": np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]),
    "turned by 90 deg about z": np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]),
    "turned by 180 deg about z": np.diag([-1.0, -1.0, 1.0]),
}


def patient(name: str) -> str:
    return SAME.get(name, name)


def without(cases: list[PlacedCase], name: str, settings: LevelSettings) -> BodyReference:
    """A reference that has not seen a patient."""
    return reference_of(content([c for c in cases if patient(c.name) != patient(name)], settings))


def reheaded(volume: Volume, matrix: np.ndarray) -> Volume:
    """The image with a header that turns or mirrors it about its center."""
    return volume.with_tensor(volume.tensor, volume.grid.turned(matrix, volume.grid.center))


def verdict(found: Anatomy) -> str:
    """What a user is told of the orientation."""
    if not found.is_clear:
        return f"not recognised: {found.reason}" if found.reason else "not clear"
    return found.orientation


def in_folds(cases: list[PlacedCase], settings: LevelSettings) -> None:
    """Print the error of the level for every patient left out, whole and in slabs."""
    generator = np.random.default_rng(0)
    rows: list[tuple[str, float, bool]] = []
    for case in cases:
        reference = without(cases, case.name, settings)
        heights = case.points[:, 2]
        windows = [("whole", np.ones(len(heights), bool))]
        for _ in range(SLABS):
            half = generator.uniform(35, 70)
            middle = generator.uniform(heights.min() + half, max(heights.max() - half, heights.min() + half + 1))
            windows.append(("slab", np.abs(heights - middle) < half))
        for kind, chosen in windows:
            if chosen.sum() < 40:
                continue
            points = case.points[chosen]
            found = judged(points, case.vectors[chosen], np.unique(points[:, 2]), reference)
            error = (
                float(np.median(np.abs(found.levels_of(points) - case.levels[chosen]))) if found.recognised else 999.0
            )
            rows.append((kind, error, found.is_clear))
            if kind == "whole":
                print(f"{case.name:16s} {error:6.1f} mm  confidence {found.confidence:.2f}  {' '.join(found.regions)}")
    for kind in ("whole", "slab"):
        clear = [error for k, error, c in rows if k == kind and c]
        total = sum(k == kind for k, _, _ in rows)
        far = sum(error > 40 for error in clear)
        print(
            f"{kind}: {total}, clear {len(clear)}; of these median {np.median(clear):.1f} mm, p90 "
            f"{np.percentile(clear, 90):.1f} mm, {far} beyond 40 mm"
        )


def turned(data: Path, names: list[str], cases: list[PlacedCase], settings: LevelSettings) -> None:
    """Print what is said of images under wrong headers."""
    paths = {case_name(path): path for path, _ in find_cases(data, list(settings.include), list(settings.exclude))}
    for name in names:
        volume = read_volume(paths[name])
        reference = without(cases, name, settings)
        for kind, matrix in TURNS.items():
            seen = embed_cached(reheaded(volume, matrix), disk=False)
            found = anatomy_of(seen, reference)
            print(f"{name:16s} {kind:26s} {verdict(found)} ({found.confidence:.2f})", flush=True)


def labeled_levels(data: Path, names: list[str]) -> Iterator[tuple[str, int, float]]:
    """Level of the centroid of every label that lies within the image, by the shipped reference."""
    for name in names:
        volume, labels = (
            read(data / "headneck" / f"{name}_{k}.nii.gz") for read, k in ((read_volume, "ct"), (read_labels, "seg"))
        )
        found = anatomy_of(embed_cached(volume))
        print(f"{name:16s} {verdict(found)} ({found.confidence:.2f}) {' '.join(found.regions)}", flush=True)
        for label in (1, 3, 4, 7) if found.is_clear else ():
            points = labels.with_tensor(labels.tensor == label).points(0.5)
            if (
                len(points)
                and volume.grid.contains(points + [0, 0, 8]).all()
                and volume.grid.contains(points - [0, 0, 8]).all()
            ):
                yield name, label, float(found.levels_of(points.mean(0)[None])[0])


def final(data: Path) -> None:
    """Print what the shipped reference says of the evaluation patients."""
    for name in ("lidc0001", "ts_example"):
        found = anatomy_of(embed_cached(read_volume(data / "trunk" / f"{name}_ct.nii.gz")))
        print(f"{name:16s} {verdict(found)} ({found.confidence:.2f}) {' '.join(found.regions)}", flush=True)
    names = [
        n for row in (data / "headneck_pairs.csv").read_text(encoding="utf-8").split()[1:6] for n in row.split(",")
    ]
    levels = list(labeled_levels(data, names))
    off = []
    for label in {row[1] for row in levels}:
        heights = np.array([row[2] for row in levels if row[1] == label])
        off += list(np.abs(heights - np.median(heights)))
    print(
        f"levels of the same organ, {len(off)} in {len({r[0] for r in levels})} patients: median distance from their "
        f"middle {np.median(off):.1f} mm, largest {max(off):.1f} mm"
    )


def main() -> int:
    """Run the study; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turned", nargs="*", default=[], metavar="CASE", help="also under wrong headers")
    parser.add_argument("--final", action="store_true", help="the evaluation patients, once, by the shipped reference")
    options = parser.parse_args()
    data = data_folder()
    if data is None:
        print("The images are not there; set SAMCONVEX_DATA.")
        return 2
    torch.set_num_threads(1)
    if options.final:
        final(data)
        return 0
    settings = read_settings(LevelSettings, CONFIG)
    cases = collect(data, settings, lambda stage, fraction, message: None)
    in_folds(cases, settings)
    turned(data, options.turned, cases, settings)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
