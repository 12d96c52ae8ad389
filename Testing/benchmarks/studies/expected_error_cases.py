"""The pairs on which the expected error is fitted, calibrated and tested, and what is known of their truth.

Training patients are fitted and, held out in turn, calibrated; no patient is in two of their pairs, and none of the
test's patients is in any.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from samconvex import Volume, read_labels, read_volume
from samconvex.io.images import read_mask
from samconvex.space.volume import average_to
from samconvex.synthetic.warps import breathing_warp, random_warp

from ..data.pairs import LIVERS, liver

TRAINING, TEST = "training", "test"
SEED = 20261127
HEAD_NECK_PAIRS, ABDOMEN_PAIRS, HEAD_NECK_WARPS, MR_WARPS, LIMB_WARPS, TESTED_HEAD_NECK = 8, 5, 3, 4, 4, 10
FIRST_WARPED = 16
# Of seven organs of head and neck; few cases have all, and pairs need some in common.
WELL_LABELED = 4
NOISE = 15.0  # HU
BREATHING = ("nlst", "nsclcrg001", "lidc0314")
# Ribs and the wall of the chest, which no contour of head, neck and abdomen tells of.
CHEST_WARPED = ("lung4d113", "cmbcrc01068", "pancreascb001", "acrin013", "c3l00189")
# Never trained on, and never fitted or calibrated on.
UNSEEN_CT = ("rad_lung1", "ts_example")


@dataclass(frozen=True)
class Truth:
    """What is known of a pair; LPS mm.

    Attributes:
        map: exact fixed-to-moving map of (N, 3) points.
        labels: (fixed, moving) label maps.
        points: corresponding (N, 3) points, fixed and moving.
    """

    map: Callable[[np.ndarray], np.ndarray] | None = None
    labels: tuple[Volume, Volume] | None = None
    points: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Loaded:
    fixed: Volume
    moving: Volume
    truth: Truth
    masks: tuple[Volume, Volume] | None = None


@dataclass(frozen=True)
class Case:
    """A pair by name.

    Attributes:
        group: the kind of truth that it is counted under.
        preset: with which it is registered.
        split: TRAINING or TEST.
        load: reads or makes it.
    """

    name: str
    group: str
    preset: str
    split: str
    load: Callable[[], Loaded] = field(repr=False)


def cases(data: Path) -> list[Case]:
    """All pairs, those that matter most first."""
    return _training(data) + _test(data)


def _training(data: Path) -> list[Case]:
    random = np.random.default_rng(SEED)
    with open(data / "headneck_pairs.csv", newline="") as file:
        kept_out = {case for row in csv.DictReader(file) for case in row.values()}
    every = sorted(path.name[:5] for path in (data / "headneck").glob("hn*_ct.nii.gz"))
    head = [str(name) for name in random.permutation([name for name in every if name not in kept_out])]
    warped = head[FIRST_WARPED:][:HEAD_NECK_WARPS]
    drawn = _well_labeled(data)
    paired = [name for name in head if name in drawn and name not in warped]
    belly = [str(name) for name in random.permutation([f"btcv{n:02d}" for n in range(14)])]
    limbs = [str(name) for name in random.permutation([f"sts{n:03d}" for n in range(1, 29)])]
    found: list[Case] = []
    for n in range(HEAD_NECK_PAIRS):
        found.append(_between(data, "headneck", paired[2 * n], paired[2 * n + 1], TRAINING))
    for n in range(ABDOMEN_PAIRS):
        found.append(_between(data, "abdomen", belly[2 * n], belly[2 * n + 1], TRAINING))
    for n, name in enumerate(warped):
        path = data / "headneck" / f"{name}_ct.nii.gz"
        found.append(_warped(path, name, "ct-inter-patient", "known warp", TRAINING, n, 20.0))
    for n, name in enumerate(CHEST_WARPED):
        path = data / "trunk" / f"{name}_ct.nii.gz"
        found.append(_warped(path, name, "ct-inter-patient", "known warp, trunk", TRAINING, 300 + n, 20.0))
    for n, name in enumerate(BREATHING):
        path = data / "trunk" / f"{name}_ct.nii.gz"
        found.append(_warped(path, name, "ct-lung-breathing", "known warp", TRAINING, n, 25.0, breath=True))
    for n, name in enumerate(limbs[:MR_WARPS]):
        path = data / "mrct" / f"{name}_mr.nii.gz"
        found.append(_warped(path, name, "ct-lung-breathing", "known warp MR", TRAINING, n, 12.0))
    for n, name in enumerate(limbs[MR_WARPS:][:LIMB_WARPS]):
        path = data / "mrct" / f"{name}_ct.nii.gz"
        found.append(_warped(path, name, "ct-follow-up", "known warp", TRAINING, n, 8.0))
    previews = [
        Case(f"{case.name}-preview", case.group, "fast-preview", case.split, case.load)
        for case in found
        if case.group in ("headneck", "abdomen")
    ]
    return _in_turn(found + previews)


def _well_labeled(data: Path) -> set[str]:
    with open(data / "cases.csv", newline="") as file:
        return {row["case"] for row in csv.DictReader(file) if len(row["labels"].split()) >= WELL_LABELED}


def _in_turn(found: list[Case]) -> list[Case]:
    """One of every kind after the other, so that an unfinished list has some of each."""
    kinds: dict[tuple[str, str], list[Case]] = {}
    for case in found:
        kinds.setdefault((case.group, case.preset), []).append(case)
    rows = max(map(len, kinds.values()))
    return [kind[n] for n in range(rows) for kind in kinds.values() if n < len(kind)]


def _test(data: Path) -> list[Case]:
    with open(data / "headneck_pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:TESTED_HEAD_NECK]
    found = [_between(data, "headneck", row["fixed"], row["moving"], TEST) for row in rows]
    belly = (("btcv14", "btcv15"), ("btcv16", "btcv17"), ("btcv18", "btcv19"))
    found += [_between(data, "abdomen", fixed, moving, TEST) for fixed, moving in belly]
    found.append(Case("lungpair", "lung pair", "ct-lung-breathing", TEST, lambda: _lung(data)))
    for subject, state in LIVERS:
        name = f"{subject}-{state}"
        found.append(Case(name, "liver MR", "mr-body", TEST, _liver(data, subject, state)))
    for n, name in enumerate(UNSEEN_CT):
        path = data / "trunk" / f"{name}_ct.nii.gz"
        found.append(_warped(path, name, "ct-lung-breathing", "known warp", TEST, 100 + n, 25.0, breath=True))
        found.append(_warped(path, name, "ct-inter-patient", "known warp, trunk", TEST, 400 + n, 20.0))
    for n, row in enumerate(rows[:2]):
        path = data / "headneck" / f"{row['moving']}_ct.nii.gz"
        found.append(_warped(path, row["moving"], "ct-inter-patient", "known warp", TEST, 200 + n, 20.0))
    return _in_turn(found)


def _between(data: Path, folder: str, fixed: str, moving: str, split: str) -> Case:
    def load() -> Loaded:
        images = [read_volume(data / folder / f"{name}_ct.nii.gz") for name in (fixed, moving)]
        labels = [read_labels(data / folder / f"{name}_seg.nii.gz") for name in (fixed, moving)]
        return Loaded(images[0], images[1], Truth(labels=(labels[0], labels[1])))

    return Case(f"{fixed}-{moving}", folder, "ct-inter-patient", split, load)


def _warped(
    path: Path, name: str, preset: str, group: str, split: str, seed: int, peak_mm: float, *, breath: bool = False
) -> Case:
    def load() -> Loaded:
        volume = average_to(read_volume(path), 2.0)
        random = np.random.default_rng(SEED + seed)
        peak = peak_mm * float(random.uniform(0.4, 1.2))
        moving, warp = (
            breathing_warp(volume, peak, seed) if breath else random_warp(volume, peak, seed, affine=peak_mm > 10)
        )
        return Loaded(_noisy(volume, random), _noisy(moving, random), Truth(map=warp.map_points))

    return Case(f"{name}-{'breath' if breath else 'warp'}", group, preset, split, load)


def _noisy(volume: Volume, random: np.random.Generator) -> Volume:
    values = volume.as_float()
    level = NOISE
    if volume.modality != "ct":
        level = 0.02 * float(values.flatten().sort().values[int(0.995 * (values.numel() - 1))])
    noise = torch.from_numpy(random.normal(0.0, level, values.shape).astype(np.float32))
    return volume.with_tensor(torch.where(values > volume.background, values + noise, values))


def _lung(data: Path) -> Loaded:
    folder = data / "lungpair"
    points = [np.loadtxt(folder / f"{s}_landmarks_lps.csv", delimiter=",", skiprows=1) for s in ("fixed", "moving")]
    masks = [read_mask(folder / f"{side}_lungmask.nii.gz") for side in ("fixed", "moving")]
    images = [read_volume(folder / f"{side}_ct.nii.gz") for side in ("fixed", "moving")]
    return Loaded(images[0], images[1], Truth(points=(points[0], points[1])), (masks[0], masks[1]))


def _liver(data: Path, subject: str, state: str) -> Callable[[], Loaded]:
    def load() -> Loaded:
        case = liver(data, subject, state)()
        return Loaded(case.fixed, case.moving, Truth(points=case.points))

    return load
