"""Fields that do not fold: the local volume ratio of the trilinear map, and smoothing where it is too small."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..space.field import DisplacementField
from ..space.filters import dilated, smooth
from ..space.grid import Grid

LEAST_VOLUME_RATIO = 0.05


def without_folds(
    deformation: DisplacementField,
    least: float = LEAST_VOLUME_RATIO,
    rounds: int = 30,
    keep: torch.Tensor | None = None,
) -> DisplacementField:
    """Smooth a field wherever its local volume ratio is below ``least``, until that holds nowhere.

    Every corner of every cell is tested, so the trilinear map between the samples does not fold either. Smoothing
    widens each round; should it not suffice, the displacement shrinks as a whole.

    Args:
        keep: bool (1, 1, D, H, W) samples that stay as they are while the rest can still give way.
    """
    tensor, grid = deformation.tensor.clone(), deformation.grid
    for number in range(rounds):
        bad = cell_determinants(tensor, grid).amin(1, keepdim=True) < least
        where = bad[0, 0].nonzero()
        if not len(where):
            return DisplacementField(tensor, grid)
        reach, passes = 1 + number // 4, 1 + number // 6
        # Work on the part of the field that changes only.
        margin = reach + passes + 3
        low = (where.amin(0) - margin).clamp(min=0).tolist()
        high = (where.amax(0) + margin + 1).tolist()
        z, y, x = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
        part = (..., z, y, x)
        weight = smooth(dilated(bad[part], reach).float(), 2)
        if keep is not None:
            weight = weight * ~keep[part]
        tensor[part] += weight * (smooth(tensor[part], passes) - tensor[part])
    if keep is not None:
        return without_folds(DisplacementField(tensor, grid), least, rounds)
    while bool((cell_determinants(tensor, grid) < least).any()):
        tensor = tensor * 0.9
    return DisplacementField(tensor, grid)


def cell_determinants(tensor: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(1, 8, D, H, W) Jacobian determinants from the one-sided differences of the eight cells around each sample.

    ``grid`` must have identity direction.
    """
    differences = []
    for axis, dim in ((0, 4), (1, 3), (2, 2)):
        step = tensor.diff(dim=dim) / grid.spacing[axis]
        edge = [0, 0, 0, 0, 0, 0]
        forward_pad, backward_pad = list(edge), list(edge)
        forward_pad[2 * axis + 1] = 1
        backward_pad[2 * axis] = 1
        differences.append((F.pad(step, forward_pad), F.pad(step, backward_pad)))
    result = []
    for corner in range(8):
        gx, gy, gz = (differences[a][(corner >> a) & 1][0] for a in range(3))
        a, b, c = gx[0] + 1, gx[1], gx[2]
        d, e, f = gy[0], gy[1] + 1, gy[2]
        g, h, i = gz[0], gz[1], gz[2] + 1
        result.append(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    return torch.stack(result)[None]
