"""Instance optimization: Adam on the displacement field of one pair (ConvexAdam; SAMConvex, section 2.3).

Three things make it cheap enough for a last stage: only voxels that count are compared, their features lie side by side
and as few principal components as wanted, and the descent ends when it gains next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ..settings.registration import AdamSettings
from ..space.field import DisplacementField
from ..space.filters import smooth
from ..space.grid import Grid
from ..space.totals import total
from ..space.volume import FeatureMap
from .multigrid import laplacian

# The descent is judged by what so many iterations gained together: single ones of Adam may rise.
PATIENCE = 6
# Enough voxels of an image to know how its features scatter.
_SAMPLED = 200_000


class Comparison:
    """Fixed features at the voxels that count, and the moving ones, to be compared under any displacement.

    Args:
        fixed: (1, C, D, H, W).
        moving: features in the same frame on an identity-direction grid that may reach further.
        weight: (1, 1, D, H, W) on the fixed features' grid.
        components: so many principal components of the features at most; 0 takes all channels.

    Attributes:
        counted: (N,) flat indices of the voxels of the fixed grid with a weight above 0.
        channels: how many are compared; those that are zero in both images are left out.
    """

    def __init__(self, fixed: FeatureMap, moving: FeatureMap, weight: torch.Tensor, components: int = 0) -> None:
        self.counted = (weight[0, 0] > 0).flatten().nonzero()[:, 0]
        self._share = weight.flatten()[self.counted] / total(weight).clamp(min=1e-6)
        target, values = fixed.tensor[0].flatten(1)[:, self.counted], moving.tensor[0].flatten(1)
        # An organ that neither image shows, for example.
        told = (target != 0).any(1) | (values != 0).any(1)
        if not bool(told.all()):
            target, values = target[told], values[told]
        if 0 < components < len(values):
            axes = principal_axes((target, values), components)
            target, values = axes @ target, axes @ values
        self.channels = len(values)
        # A voxel's features side by side: a point reads eight short runs instead of eight places in every channel.
        self._target, self._values = target.T.contiguous(), values.T.contiguous()
        grid = moving.grid
        size = torch.tensor(grid.size, device=target.device)[:, None]
        self._last = (size - 1).to(target)
        self._lowest = (size - 2).clamp(min=0).to(target)
        stride = (1, grid.size[0], grid.size[0] * grid.size[1])
        x, y, z = (step * (count > 1) for step, count in zip(stride, grid.size, strict=True))
        corners = [a + b + c for c in (0, z) for b in (0, y) for a in (0, x)]
        self._corners = torch.tensor(corners, dtype=torch.int32, device=target.device)
        self._stride = torch.tensor(stride, dtype=torch.int32, device=target.device)[:, None]
        self._step = 1 / torch.tensor(grid.spacing, device=target.device)[:, None].to(target)
        points = fixed.grid.voxel_centers(reference=grid.origin, device=target.device).view(-1, 3)[self.counted]
        self._places = points.T.contiguous() * self._step

    def distance(self, displacement: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Half the weighted mean squared feature difference at (3, N) mm, and its derivative (3, N) per mm."""
        raw = self._places + displacement * self._step
        places = torch.minimum(raw.clamp(min=0.0), self._last)
        low = torch.minimum(places.floor(), self._lowest)
        x, y, z = places - low
        across = [(1 - z) * (1 - y), (1 - z) * y, z * (1 - y), z * y]
        weights = torch.stack([part for each in across for part in (each * (1 - x), each * x)]).T.contiguous()
        indices = (low.to(torch.int32) * self._stride).sum(0, dtype=torch.int32)[:, None] + self._corners
        with torch.enable_grad():
            weights.requires_grad_(True)
            found = F.embedding_bag(indices, self._values, mode="sum", per_sample_weights=weights)
        difference = found.detach() - self._target
        distance = 0.5 * float(total(torch.linalg.vecdot(difference, difference) * self._share))
        # What more of each corner would do to the distance; from there to millimeters by the chain rule.
        (pull,) = torch.autograd.grad(found, weights, difference)
        near, far = pull.view(-1, 4, 2).unbind(2)
        near, far = near.T.contiguous(), far.T.contiguous()
        along_x = sum(each * part for each, part in zip(far - near, across, strict=True))
        a, b, c, d = torch.lerp(near, far, x)
        slope = torch.stack([along_x, torch.lerp(b - a, d - c, z), torch.lerp(c - a, d - b, y)])
        # Beyond the border the edge goes on, level.
        slope *= (raw == places) * self._step
        return distance, slope.mul_(self._share)


def principal_axes(features: Sequence[torch.Tensor], count: int) -> torch.Tensor:
    """(count, C) orthonormal directions in which the features (C, N) of all images together scatter most."""
    sampled = torch.cat([values[:, :: max(1, values.shape[1] // _SAMPLED)] for values in features], 1).double()
    centered = sampled - sampled.mean(1, keepdim=True)
    _, axes = torch.linalg.eigh(centered @ centered.T)
    return axes[:, -count:].T.to(features[0])


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
        The field of the least energy, on ``grid``.
    """
    # What came before stays as sharp as it was: only what is added is filtered.
    start = field.on_grid(grid, fill=None).tensor
    parameters = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=settings.step_mm)
    comparison = Comparison(fixed, moving, weight, settings.components)
    parts = settings.subdivision
    # Twice: of the squared gradient, not of half of it.
    stiffness = 2 * settings.regularization * parts**3 / max(1, len(comparison.counted))
    energies: list[float] = []
    best = None
    for iteration in range(settings.iterations + 1):
        u = start + smooth(parameters, settings.box_passes)
        dense = u if parts == 1 else F.interpolate(u, scale_factor=parts, mode="trilinear")
        moved = dense.flatten(2)[0, :, comparison.counted]
        with torch.no_grad():
            distance, slope = comparison.distance(moved)
            resistance = laplacian(u, grid.spacing, stiffness)
            energies.append(distance + 0.5 * float((u * resistance).sum()))
        if best is None or energies[-1] < min(energies[:-1]):
            best = u.detach()
        if iteration == settings.iterations or settled(energies, settings.enough):
            break
        optimizer.zero_grad()
        torch.autograd.backward([moved, u], [slope, resistance])
        for group in optimizer.param_groups:
            group["lr"] = settings.step_mm * (1 - iteration / settings.iterations)
        optimizer.step()
        report((iteration + 1) / settings.iterations)
    report(1.0)
    assert best is not None
    return DisplacementField(best, grid)


def settled(energies: list[float], enough: float) -> bool:
    """The last :data:`PATIENCE` iterations gained less than the share ``enough`` of all that was gained."""
    if not enough or len(energies) <= PATIENCE:
        return False
    least = min(energies)
    return min(energies[:-PATIENCE]) - least <= enough * (energies[0] - least)
