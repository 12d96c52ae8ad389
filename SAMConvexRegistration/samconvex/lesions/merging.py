"""Lesions of the baseline that have grown together in a follow-up are one there: measured and counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from ..space.grid import Grid
from ..space.volume import Volume, resample
from .baseline import Baseline
from .findings import FOUND, Finding
from .measurement import measure_lesion, trimmed


def joined(known: Sequence[Baseline], findings: Sequence[Finding], image: Grid) -> list[Finding]:
    """The findings of one follow-up, those whose contours touch there, and did not at the baseline, merged.

    Args:
        known: the lesions at the baseline. findings: theirs, in the same order. image: the follow-up's grid.
    """
    result = list(findings)
    group = list(range(len(result)))
    contours = [finding.suggested if finding.state == FOUND else None for finding in result]
    for second in range(len(result)):
        for first in range(second):
            one, other = contours[first], contours[second]
            if one is None or other is None or group[first] == group[second]:
                continue
            if touch(one, other) and not touch(known[first].contour, known[second].contour):
                old, new = sorted((group[first], group[second]), reverse=True)
                group = [new if number == old else number for number in group]
    for leader in sorted(set(group)):
        members = [row for row, number in enumerate(group) if number == leader]
        if len(members) > 1:
            _merge(result, members, image)
    return result


def touch(first: Volume, second: Volume) -> bool:
    """True where two masks overlap or lie side by side, within a voxel of the finer."""
    shared = _common(first, second)
    if shared is None:
        return False
    near = F.max_pool3d(shared[0], 3, 1, 1)
    return bool((near * shared[1]).any())


def _common(*masks: Volume) -> list[torch.Tensor] | None:
    """Float masks (1, 1, D, H, W) on one grid over all; None where their boxes are apart."""
    cut = [trimmed(mask.with_tensor((mask.tensor > 0.5).float()), margin=2) for mask in masks]
    if any(mask is None for mask in cut):
        return None
    found = [mask for mask in cut if mask is not None]
    boxes = [mask.grid.corners() for mask in found]
    if len(found) == 2 and ((boxes[0].max(0) < boxes[1].min(0)) | (boxes[1].max(0) < boxes[0].min(0))).any():
        return None
    grid = Grid.covering(np.concatenate(boxes), min(min(mask.grid.spacing) for mask in found), margin_mm=2.0)
    return [(resample(mask, grid, fill=0.0).tensor > 0.5).float() for mask in found]


def _merge(findings: list[Finding], members: list[int], image: Grid) -> None:
    """The first member gets the contour of all, the others keep their place alone."""
    names = [findings[row].lesion for row in members]
    masks = [mask for row in members if (mask := findings[row].suggested) is not None]
    # On the grid of the first, made large enough for all.
    base = masks[0].grid
    ends = np.concatenate([base.points_to_voxels(mask.grid.corners()) for mask in masks])
    lower = np.floor(ends.min(0)).astype(int)
    size = (np.ceil(ends.max(0)).astype(int) - lower + 1).tolist()
    grid = base.cropped(lower.tolist(), size)
    parts = [resample(mask.with_tensor(mask.as_float()), grid, fill=0.0).tensor > 0.5 for mask in masks]
    whole = Volume(torch.stack(parts).any(0).float(), grid)
    for row in members:
        mine = findings[row].lesion
        others = tuple(name for name in names if name != mine)
        text = f"{mine} has grown together with {', '.join(others)}"
        if row == members[0]:
            measured = measure_lesion(whole, image)
            text += "; they are measured as one."
            labels = Volume(whole.tensor.to(torch.uint8), grid, sitk.sitkUInt8)
            findings[row] = replace(
                findings[row], suggested=labels, measurement=measured, merged_with=others, reason=text
            )
        else:
            text += f"; the measurement is that of {names[0]}."
            findings[row] = replace(findings[row], suggested=None, measurement=None, merged_with=others, reason=text)
