"""Instance optimization: Adam on the displacement field of one pair (ConvexAdam; SAMConvex, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..settings.registration import AdamSettings
from ..space.field import DisplacementField
from ..space.filters import smooth
from ..space.grid import Grid
from ..space.sampling import interpolate
from ..space.totals import total
from ..space.volume import FeatureMap


def optimize(
    field: DisplacementField,
    fixed: FeatureMap,
    moving: FeatureMap,
    weight: torch.Tensor,
    settings: AdamSettings,
    *,
    grid: Grid,
    report: Callable[[float], None],
) -> DisplacementField:
    """Refine ``field`` so that ``moving`` features, displaced, match the ``fixed`` ones.

    Args:
        field: start, on any identity-direction grid.
        fixed: features on ``grid`` subdivided by ``settings.subdivision``.
        moving: features in the same frame (initial transform applied), on a grid of the same spacing that may reach
            further.
        weight: (1, 1, D, H, W) on the fixed features' grid.
        grid: control grid of the result.
        report: receives the finished fraction; may raise Cancelled.

    Returns:
        The smoothed field that the loss saw, on ``grid``.
    """
    parameters = field.on_grid(grid, fill=None).tensor.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.step_mm)
    # Only voxels that count are compared; in a typical box half of them are air.
    counted = (weight[0, 0] > 0).flatten().nonzero()[:, 0]
    points = fixed.grid.voxel_centers(reference=grid.center, device=parameters.device).view(-1, 3)[counted]
    base = moving.grid.normalized(points, grid.center)
    place = grid.normalized(points, grid.center)[None, None, None]
    target = fixed.tensor.flatten(2)[:, :, counted]
    # Millimeters to normalized steps of the moving features' grid (identity direction: a diagonal scale).
    extent = [s * max(n - 1, 1) for s, n in zip(moving.grid.spacing, moving.grid.size, strict=True)]
    scale = 2 / torch.tensor(extent, device=base.device)
    spacing = torch.tensor(grid.spacing, device=base.device)
    share = weight.flatten()[counted] / total(weight).clamp(min=1e-6)
    voxels = max(1.0, len(counted) / settings.subdivision**3)
    direct = settings.subdivision == 1 and fixed.grid.shape == grid.shape

    def displacement() -> torch.Tensor:
        return smooth(parameters, settings.box_passes)

    for iteration in range(settings.iterations):
        u = displacement()
        if direct:
            dense = u.flatten(2)[0, :, counted].T
        else:
            dense = F.grid_sample(u, place, padding_mode="border", align_corners=True)[0, :, 0, 0].T
        warped = interpolate(moving.tensor, (base + dense * scale)[:, None, None])[..., 0, 0]
        distance = 0.5 * (warped - target).square().sum(1)[0]
        roughness = sum((u.diff(dim=axis) / spacing[4 - axis]).square().sum() for axis in (2, 3, 4)) / voxels
        loss = (distance * share).sum() + settings.regularization * roughness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report((iteration + 1) / settings.iterations)
    with torch.no_grad():
        return DisplacementField(displacement().detach(), grid)
