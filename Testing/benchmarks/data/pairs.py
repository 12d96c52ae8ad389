"""The image pairs of the registration benchmark, and what is known of their truth."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from samconvex import Volume, read_labels, read_volume
from samconvex.anatomy.body import body_mask
from samconvex.io.images import read_mask
from samconvex.synthetic.phantom import make_phantom
from samconvex.synthetic.warps import breathing

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGS = REPOSITORY / "SAMConvexRegistration" / "samconvex" / "training" / "configs"
# Groups of pairs whose images lie in a folder of that name, with label maps.
FOLDERS = {"head-neck": "headneck", "abdomen": "abdomen"}
# CT never used for training, so that learned features get no advantage either.
WARPED_CASES = ("lidc0001", "rad_lung1", "rad_lung2", "ts_example")
BREATH_MM = 25.0
# Abdomens kept for evaluation: 15 pairs of six patients.
EVALUATION_ABDOMENS = tuple(f"btcv{number}" for number in range(14, 20))
# Volunteers of liver4dmr and their states, each against the breath let out ("exh").
LIVERS = (("s18", "cyc_1_10"), ("s18", "cyc_3_10"), ("s19", "cyc_1_6"), ("s19", "cyc_1_9"))


@dataclass(frozen=True)
class Case:
    """A loaded pair. Frame: LPS mm.

    Attributes:
        fixed, moving: the images on their own grids.
        labels: (fixed, moving) label maps.
        points: corresponding (N, 3) points, fixed and moving.
        masks: (fixed, moving): where the images show what is to be registered.
        truth: the exact fixed-to-moving map of (N, 3) points, where it is known everywhere.
        truth_points: (N, 3) fixed points at which ``truth`` is compared: inside the body, seen in the moving image.
    """

    fixed: Volume
    moving: Volume
    labels: tuple[Volume, Volume] | None = None
    points: tuple[np.ndarray, np.ndarray] | None = None
    masks: tuple[Volume, Volume] | None = None
    truth: Callable[[np.ndarray], np.ndarray] | None = None
    truth_points: np.ndarray | None = None


@dataclass(frozen=True)
class Pair:
    """A pair by name; ``load`` reads or makes it. ``preset`` is ours for this kind of pair."""

    name: str
    group: str
    preset: str
    load: Callable[[], Case]


def data_folder() -> Path | None:
    """The evaluation images: SAMCONVEX_DATA, or ``../shared/data`` beside the repository; None where absent."""
    folder = Path(os.environ.get("SAMCONVEX_DATA", REPOSITORY.parent / "shared" / "data"))
    return folder if (folder / "headneck_pairs.csv").is_file() else None


def organ_names() -> dict[str, dict[str, str]]:
    """Group of pairs -> label -> organ, as the recipe of the organ network reads them."""
    recipe = json.loads((CONFIGS / "semantic_trunk.json").read_text(encoding="utf-8"))
    return {group: recipe["label_groups"][folder]["labels"] for group, folder in FOLDERS.items()}


def choose_pairs(head_neck: int, data: Path | None, abdomen: int = 0) -> list[Pair]:
    """The first ``head_neck`` and ``abdomen`` inter-patient pairs, the lung pair, four known warps and four breathing
    livers; phantoms without the data.
    """
    if data is None:
        return [
            Pair("phantom-patients", "phantom", "ct-inter-patient", _phantom_patients),
            Pair("phantom-breath", "known warp", "ct-lung-breathing", _phantom_breath),
        ]
    with open(data / "headneck_pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:head_neck]
    pairs = []
    for row in rows:
        name = f"{row['fixed']}-{row['moving']}"
        pairs.append(Pair(name, "head-neck", "ct-inter-patient", _patients(data / "headneck", *row.values())))
    for names in list(itertools.combinations(EVALUATION_ABDOMENS, 2))[:abdomen]:
        pairs.append(Pair("-".join(names), "abdomen", "ct-inter-patient", _patients(data / "abdomen", *names)))
    pairs.append(Pair("lung", "lung", "ct-lung-breathing", lambda: _lung(data)))
    pairs += [
        Pair(f"breath-{name}", "known warp", "ct-lung-breathing", _breath(data, name, seed))
        for seed, name in enumerate(WARPED_CASES)
    ]
    pairs += [
        Pair(f"liver-{subject}-{state}", "liver MR", "mr-body", liver(data, subject, state))
        for subject, state in LIVERS
    ]
    return pairs


def _patients(folder: Path, fixed: str, moving: str) -> Callable[[], Case]:
    def load() -> Case:
        images = [read_volume(folder / f"{case}_ct.nii.gz") for case in (fixed, moving)]
        labels = [read_labels(folder / f"{case}_seg.nii.gz") for case in (fixed, moving)]
        return Case(images[0], images[1], labels=(labels[0], labels[1]))

    return load


def _lung(data: Path) -> Case:
    folder = data / "lungpair"
    tables = [folder / f"{side}_landmarks_lps.csv" for side in ("fixed", "moving")]
    points = [np.loadtxt(table, delimiter=",", skiprows=1) for table in tables]
    masks = [read_mask(folder / f"{side}_lungmask.nii.gz") for side in ("fixed", "moving")]
    return Case(
        read_volume(folder / "fixed_ct.nii.gz"),
        read_volume(folder / "moving_ct.nii.gz"),
        points=(points[0], points[1]),
        masks=(masks[0], masks[1]),
    )


def liver(data: Path, subject: str, state: str) -> Callable[[], Case]:
    """A volunteer of liver4dmr, the breath let out, and another state; the landmarks that both states have."""

    def load() -> Case:
        folder = data / "liver4dmr"
        with open(folder / "landmarks_lps.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["subject"] == subject]
        places = {
            phase: {r["landmark"]: [float(r[axis]) for axis in "xyz"] for r in rows if r["phase"] == phase}
            for phase in ("exh", state)
        }
        common = sorted(set(places["exh"]) & set(places[state]), key=int)
        points = [np.array([places[phase][name] for name in common]) for phase in ("exh", state)]
        images = [read_volume(folder / f"{subject}_{phase}.nii.gz") for phase in ("exh", state)]
        return Case(images[0], images[1], points=(points[0], points[1]))

    return load


def _breath(data: Path, name: str, seed: int) -> Callable[[], Case]:
    return lambda: breathing_case(read_volume(data / "trunk" / f"{name}_ct.nii.gz"), seed)


def breathing_case(fixed: Volume, seed: int, peak_mm: float = BREATH_MM) -> Case:
    """``fixed`` and its image after a breath of ``peak_mm``, with the exact map."""
    warp = breathing(fixed, peak_mm, seed)
    moving = warp.warp(fixed)
    return Case(fixed, moving, truth=warp.map_points, truth_points=_seen(fixed, moving, warp.map_points))


def _seen(fixed: Volume, moving: Volume, truth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    body = body_mask(fixed)
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(-1).numpy())
    points = points[fixed.grid.contains(points)]
    return points[moving.grid.contains(truth(points))]


def _phantom_patients() -> Case:
    first, second = make_phantom(1, 3.0), make_phantom(2, 3.0)
    names = sorted(set(first.landmarks) & set(second.landmarks))
    points = [np.stack([phantom.landmarks[name] for name in names]) for phantom in (first, second)]

    def truth(places: np.ndarray) -> np.ndarray:
        return first.corresponding_points(places, second)

    return Case(
        first.ct,
        second.ct,
        labels=(first.labels, second.labels),
        points=(points[0], points[1]),
        truth=truth,
        truth_points=_seen(first.ct, second.ct, truth),
    )


def _phantom_breath() -> Case:
    return breathing_case(make_phantom(3, 3.0, couch=False).ct, 0)
