"""Anatomical landmarks from label maps: centroids, extreme points and spinal-cord points by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from samconvex.space.volume import Volume

MINIMUM_VOXELS = 24
# Of an end of a label without a name: what lies within this of its outermost voxel.
_END_MM = 4.0
EXTREMES = {
    "left": (1, 0, 0),
    "right": (-1, 0, 0),
    "back": (0, 1, 0),
    "front": (0, -1, 0),
    "top": (0, 0, 1),
    "bottom": (0, 0, -1),
}


@dataclass(frozen=True)
class LabelNames:
    """Which labels are compact (centroid and extremes), which is a tube (points at the levels of compact ones).

    ``tips``: directions in which a structure ends in one place. The mandible's highest and rearmost points are two
    (left and right condyle), and a flat side's outermost point wanders with the tilt of the head: no landmarks.
    """

    compact: dict[int, str]
    tube: int | None
    tips: dict[str, tuple[str, ...]]


HEAD_NECK = LabelNames(
    {1: "brainstem", 3: "right parotid", 4: "left parotid", 6: "larynx", 7: "mandible"},
    2,
    {
        "brainstem": ("top", "bottom"),
        "right parotid": ("top", "bottom", "right"),
        "left parotid": ("top", "bottom", "left"),
        "larynx": ("top", "bottom", "front"),
        "mandible": ("front",),
    },
)
# Tubes begin and end with the scan or where somebody stopped drawing, so they are left out.
ABDOMEN = LabelNames(
    {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        6: "liver",
        7: "stomach",
        11: "pancreas",
        12: "right adrenal",
        13: "left adrenal",
    },
    None,
    {},
)


def label_landmarks(labels: Volume, names: LabelNames | None) -> dict[str, np.ndarray]:
    """Landmarks by name, (3,) LPS mm.

    Labels that touch the first or last slice are cut by the field of view and left out. Extreme points are means of the
    outermost 3 % of voxels, which the label's stair steps move little. Without ``names``: centroids of whole labels and
    the upper and lower end of every label where the field of view does not cut it there.
    """
    if names is None:
        return _ends_and_centers(labels)
    array = labels.tensor[0, 0].numpy()
    result: dict[str, np.ndarray] = {}
    centers: dict[str, np.ndarray] = {}
    for value in np.unique(array):
        name = names.compact.get(int(value))
        if value == 0 or name is None:
            continue
        index = np.argwhere(array == value)
        ends = [0, array.shape[0] - 1]
        if len(index) < MINIMUM_VOXELS or np.isin(index[:, 0], ends).any():
            continue
        points = labels.grid.voxels_to_points(index[:, ::-1].astype(float))
        centers[name] = result[f"{name} center"] = points.mean(0)
        count = max(3, len(points) * 3 // 100)
        for side in names.tips.get(name, ()):
            direction = EXTREMES[side]
            outermost = np.argsort(-points @ np.array(direction, dtype=float))[:count]
            result[f"{name} {side}"] = points[outermost].mean(0)
    if names.tube is not None and (array == names.tube).sum() >= MINIMUM_VOXELS:
        tube = labels.grid.voxels_to_points(np.argwhere(array == names.tube)[:, ::-1].astype(float))
        for name, center in centers.items():
            near = np.abs(tube[:, 2] - center[2]) < 4.0
            if near.sum() >= 3 and name != "brainstem":
                result[f"cord at {name}"] = tube[near].mean(0)
    return result


def _ends_and_centers(labels: Volume) -> dict[str, np.ndarray]:
    array, grid = labels.tensor[0, 0].numpy(), labels.grid
    last = array.shape[0] - 1
    first, second = grid.voxels_to_points(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    result: dict[str, np.ndarray] = {}
    for value in np.unique(array[array > 0]):
        index = np.argwhere(array == value)
        if len(index) < MINIMUM_VOXELS:
            continue
        points = grid.voxels_to_points(index[:, ::-1].astype(float))
        cut = {"bottom": bool((index[:, 0] == 0).any()), "top": bool((index[:, 0] == last).any())}
        if second[2] < first[2]:
            cut = {"bottom": cut["top"], "top": cut["bottom"]}
        if not any(cut.values()):
            result[f"label {int(value)} center"] = points.mean(0)
        for side, height in (("bottom", -points[:, 2]), ("top", points[:, 2])):
            if not cut[side]:
                result[f"label {int(value)} {side}"] = points[height > height.max() - _END_MM].mean(0)
    return result
