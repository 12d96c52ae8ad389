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
from .course import MERGED
from .findings import Finding
from .measurement import size_in, trimmed
from .precision import expected_error

# A lesion's place that another, grown one covers by this share is part of it.
_COVERED = 0.5


def joined(
    known: Sequence[Baseline],
    findings: Sequence[Finding],
    image: Grid,
    *,
    contours: Sequence[Volume | None] | None = None,
    carried: Sequence[Volume | None] | None = None,
) -> list[Finding]:
    """The findings of one follow-up, those whose contours touch there, and did not at the baseline, merged.

    Args:
        known: the lesions at the baseline. findings: theirs, in the same order. image: the follow-up's grid.
        contours: of what is there, also of lesions that came as a point; default those of ``findings``.
        carried: the baseline's contours at their places: one that is covered by a lesion that it did not touch is part
            of it, even where it was not found by itself.
    """
    result = list(findings)
    group = list(range(len(result)))
    shapes = list(contours) if contours is not None else [f.suggested if f.found else None for f in result]
    places = list(carried) if carried is not None else [None] * len(result)
    for second in range(len(result)):
        for first in range(second):
            if group[first] == group[second] or not _meet(shapes, places, first, second):
                continue
            if not touch(known[first].contour, known[second].contour):
                old, new = sorted((group[first], group[second]), reverse=True)
                group = [new if number == old else number for number in group]
    for leader in sorted(set(group)):
        members = [row for row, number in enumerate(group) if number == leader]
        if len(members) > 1:
            _merge(result, members, image, shapes)
    return result


def _meet(shapes: Sequence[Volume | None], places: Sequence[Volume | None], first: int, second: int) -> bool:
    """Whether two lesions are one mass now."""
    one, other = shapes[first], shapes[second]
    if one is not None and other is not None:
        return touch(one, other)
    for mass, place in ((one, places[second]), (other, places[first])):
        if mass is not None and place is not None:
            shared = _common(mass, place)
            if shared is not None and float((shared[0] * shared[1]).sum()) >= _COVERED * float(shared[1].sum()):
                return True
    return False


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


def _merge(findings: list[Finding], members: list[int], image: Grid, shapes: Sequence[Volume | None]) -> None:
    """The first member gets the contour of all, the others keep their place alone."""
    names = [findings[row].lesion for row in members]
    masks = [mask for row in members if (mask := shapes[row]) is not None]
    drawn = [mask for row in members if (mask := findings[row].suggested) is not None]
    # On the grid of the first, made large enough for all.
    base = (drawn or masks)[0].grid
    ends = np.concatenate([base.points_to_voxels(mask.grid.corners()) for mask in masks])
    lower = np.floor(ends.min(0)).astype(int)
    size = (np.ceil(ends.max(0)).astype(int) - lower + 1).tolist()
    grid = base.cropped(lower.tolist(), size)
    parts = [resample(mask.with_tensor(mask.as_float()), grid, fill=0.0).tensor > 0.5 for mask in masks]
    whole = Volume(torch.stack(parts).any(0).to(torch.uint8), grid, sitk.sitkUInt8)
    measured = size_in(whole, image) if drawn else None
    score = max(findings[row].score for row in members)
    for row in members:
        mine = findings[row].lesion
        others = tuple(name for name in names if name != mine)
        first = row == members[0]
        text = f"{mine} has grown together with {', '.join(others)}"
        text += "; they are measured as one." if first else f"; the measurement is that of {names[0]}."
        findings[row] = replace(
            findings[row],
            state=MERGED,
            score=score,
            merged_with=others,
            reason=text,
            suggested=whole if first and drawn else None,
            measurement=measured if first else None,
            error=expected_error(measured, image) if first and measured is not None else None,
            fragments=(),
        )
