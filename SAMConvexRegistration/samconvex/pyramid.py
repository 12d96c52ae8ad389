"""Coarse to fine: warp what is known, describe both images, correlate, solve, compose.

SAMConvex (Li et al., MICCAI 2023), Fig. 2, for any feature descriptor. All grids have identity direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .convex import coupled_convex
from .correlation import LocalCorrelation
from .features.protocols import FeatureExtractor, PairFeatures
from .progress import Progress, stage
from .settings.registration import FORBIDDEN, Level
from .space.field import DisplacementField
from .space.filters import dilated, smooth
from .space.grid import Grid
from .space.sampling import inside, interpolate, slabs
from .space.transforms import Transform
from .space.volume import FeatureMap, Volume, resample

# What counts less than this is not matched but continues what is. Dice on eight head-neck pairs: 0.609 with 0 and 0.05,
# 0.612 with 0.4, 0.610 with 0.7.
_BELIEVED = 0.4
# So many voxels a level may match before it becomes coarser: those of a head and neck with shoulders at 2.5 mm.
_VOXELS = 1_200_000


@dataclass(frozen=True)
class Scene:
    """What a registration looks at, in the fixed image's frame.

    Attributes:
        fixed: fixed image, intensities normalized to [0, 1], float.
        moving: moving image likewise, on its own grid, averaged to about the working spacing.
        initial: maps fixed points to moving points before any deformation.
        box: (2, 3) opposite corners in LPS mm of the region to register.
        fixed_mask, moving_mask: where data counts (nonzero), on any grid.
        strict: nothing may be matched to where the moving image has no data, whatever a level says.
    """

    fixed: Volume
    moving: Volume
    initial: Transform
    box: np.ndarray
    fixed_mask: Volume | None = None
    moving_mask: Volume | None = None
    strict: bool = False
    memory_budget: int = 1 << 30
    dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return self.fixed.tensor.device

    def counted_mm3(self) -> float:
        """Volume of what counts in the fixed image."""
        if self.fixed_mask is None:
            return float(np.prod(np.ptp(self.box, axis=0)))
        return float((self.fixed_mask.tensor > 0).sum()) * float(np.prod(self.fixed_mask.grid.spacing))

    def chain(self, field: DisplacementField | None) -> Transform:
        return Transform((() if field is None else (field,)) + self.initial.parts)

    def weight_on(self, grid: Grid) -> torch.Tensor:
        """(1, 1, D, H, W) in [0, 1]: share of each voxel that counts in the fixed image."""
        if self.fixed_mask is None:
            points = grid.voxel_centers(reference=grid.center, device=self.device)
            return inside(self.fixed.grid, self.fixed.grid.normalized(points, grid.center))[None, None].float()
        return resample(self.fixed_mask, grid, fill=0.0).tensor.clamp(0, 1)

    def valid_on(self, grid: Grid, field: DisplacementField | None) -> torch.Tensor:
        """(1, 1, D, H, W) bool: the moving image (its mask) has data there."""
        mask = self.moving_mask
        if mask is not None:
            mask = mask.with_tensor((mask.tensor != 0).float())
            return self.chain(field).warp_volume(mask, grid, background=0.0).tensor > 0.5
        points = grid.voxel_centers(reference=grid.center, device=self.device)
        points, reference = self.chain(field).map_relative(points, grid.center)
        return inside(self.moving.grid, self.moving.grid.normalized(points, reference))[None, None]


Extractor = Callable[[str], FeatureExtractor | PairFeatures]


@dataclass(frozen=True)
class View:
    """One image of a scene, seen on grids of the fixed frame.

    Attributes:
        side: "fixed", or "moving": pulled through the initial transform and ``field``.
    """

    scene: Scene
    side: str
    field: DisplacementField | None = None

    def image(self, grid: Grid, parts: int) -> Volume:
        """Linear interpolation on ``grid`` subdivided into ``parts`` along each axis, 0 outside the image.

        Places are computed on ``grid`` and interpolated between: both maps are linear there but for the field's kinks.
        """
        source = self.scene.fixed if self.side == "fixed" else self.scene.moving
        dense = grid.subdivided(parts)
        output = torch.empty(1, 1, *dense.shape, device=self.scene.device)
        for z0, z1 in slabs(grid, max(1, 2_000_000 // parts**3)):
            # One more slice on either side to interpolate between.
            low, high = (max(z0 - 1, 0), min(z1 + 1, grid.size[2])) if parts > 1 else (z0, z1)
            points, reference = self.points(grid.cropped((0, 0, low), (*grid.size[:2], high - low)))
            places = source.grid.normalized(points, reference)
            if parts > 1:
                spread = _continued(places.permute(3, 0, 1, 2)[None])
                spread = F.interpolate(spread, scale_factor=parts, mode="trilinear")[0].permute(1, 2, 3, 0)
                first = (z0 - low + 1) * parts
                places = spread[first : first + (z1 - z0) * parts, parts:-parts, parts:-parts]
            block = interpolate(source.tensor, places)
            block.masked_fill_(~inside(source.grid, places)[None, None], 0.0)
            output[:, :, z0 * parts : z1 * parts] = block
        return source.with_tensor(output, dense)

    def points(self, grid: Grid) -> tuple[torch.Tensor, np.ndarray]:
        """Where the voxels of ``grid`` lie in the image's own frame: (d, h, w, 3) relative to the reference."""
        points = grid.voxel_centers(reference=grid.center, device=self.scene.device)
        if self.side == "fixed":
            return points, grid.center
        return self.scene.chain(self.field).map_relative(points, grid.center)


def _continued(places: torch.Tensor) -> torch.Tensor:
    """(1, C, D, H, W) with one more voxel on every side, continued linearly."""
    for axis in (2, 3, 4):
        first, last = places.narrow(axis, 0, 1), places.narrow(axis, -1, 1)
        if places.shape[axis] > 1:
            first, last = 2 * first - places.narrow(axis, 1, 1), 2 * last - places.narrow(axis, -2, 1)
        places = torch.cat([first, places, last], axis)
    return places


def described(
    view: View,
    extractor: Extractor,
    names: Sequence[str],
    weights: Sequence[float],
    grid: Grid,
    subdivision: int,
    dtype: torch.dtype = torch.float32,
) -> FeatureMap:
    """All named features side by side on ``grid``, scaled so that squared distances add with the given weights.

    Args:
        weights: of the descriptors' costs; empty means 1.
        subdivision: image voxels per voxel of ``grid`` along an axis, for descriptors that look at the warped image.
        dtype: of the result.
    """
    image = None
    maps = []
    for name, weight in zip(names, weights or (1.0,) * len(names), strict=True):
        descriptor = extractor(name)
        if isinstance(descriptor, PairFeatures):
            tensor = _averaged(view, descriptor, grid)
        else:
            if image is None:
                image = view.image(grid, subdivision)
            if subdivision > 1 and hasattr(descriptor, "pooled"):  # without ever holding all voxels' descriptors
                tensor = descriptor.pooled(image, subdivision).tensor
            else:
                tensor = descriptor(image).tensor
                tensor = F.avg_pool3d(tensor, subdivision) if subdivision > 1 else tensor
        maps.append((tensor if weight == 1.0 else tensor * weight**0.5).to(dtype))
    return FeatureMap(maps[0] if len(maps) == 1 else torch.cat(maps, 1), grid)


def _averaged(view: View, features: PairFeatures, grid: Grid) -> torch.Tensor:
    """Features at the voxels of ``grid``, means over those of a finer grid where they are made more finely."""
    # Linear interpolation sees two voxels along an axis by itself.
    parts = max(1, round(min(grid.spacing) / features.spacing_mm / 2))
    tensors = []
    for z0, z1 in slabs(grid, max(1, 400_000 // parts**3)):
        low, size = (0, 0, z0), (*grid.size[:2], z1 - z0)
        points, reference = view.points(grid.cropped(low, size).subdivided(parts))
        tensor = features.at(view.side, points, reference)
        tensors.append(F.avg_pool3d(tensor, parts) if parts > 1 else tensor)
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 2)


def solve_level(
    scene: Scene,
    extractor: Extractor,
    level: Level,
    field: DisplacementField | None,
    *,
    coupling: float,
    box_passes: int,
    report: Callable[[float], None],
) -> DisplacementField:
    """Improve ``field`` by one level; returns the composed field on the level's control grid."""
    control = Grid.covering(scene.box, level.spacing)
    reach = control.padded(level.radius)
    chosen = (extractor, level.features, level.weights)
    fixed = described(View(scene, "fixed"), *chosen, control, level.subdivision, scene.dtype).tensor
    weight = scene.weight_on(control)
    report(0.1)
    previous = None if field is None else field.on_grid(reach, fill=None)
    moving = described(View(scene, "moving", previous), *chosen, reach, level.subdivision, scene.dtype).tensor
    valid = scene.valid_on(reach, previous)
    report(0.25)

    def solve(
        first: torch.Tensor,
        second: torch.Tensor,
        second_valid: torch.Tensor,
        first_weight: torch.Tensor,
        start: float,
        end: float,
    ) -> torch.Tensor:
        correlation = LocalCorrelation(
            first,
            second,
            level.radius,
            valid=second_valid,
            weight=first_weight,
            unseen=FORBIDDEN if scene.strict else level.unseen,
            memory_budget=scene.memory_budget,
            dtype=scene.dtype,
        )
        return coupled_convex(
            correlation,
            control.spacing,
            coupling_per_mm2=coupling * level.coupling,
            box_passes=box_passes,
            weight=first_weight,
            report=lambda fraction: report(start + (end - start) * fraction),
        )

    r = level.radius
    crop = (slice(None), slice(None), *(slice(r, -r),) * 3)
    # What lies beyond the moving image, or may, follows its neighbors instead of the nearest place that exists.
    weight = weight * _edge(valid, r)[crop]
    weight = weight * (weight > _BELIEVED)
    forward = solve(fixed, moving, valid, weight, 0.25, 0.6 if level.consistent else 0.95)
    if level.consistent:
        pad = (r,) * 6
        padded_fixed = F.pad(fixed, pad, mode="replicate")
        in_box = F.pad(torch.ones_like(weight), pad) > 0.5
        # Only near what counts: the field of the air is never used.
        near = dilated(weight > 0, r) & valid[crop]
        backward = solve(moving[crop], padded_fixed, in_box, near.float(), 0.6, 0.95)
        forward = symmetrized(DisplacementField(forward, control), DisplacementField(backward, control)).tensor
    step = DisplacementField(smooth(forward, 1), control)
    result = step if previous is None else previous.after(step)
    report(1.0)
    return result


def _edge(valid: torch.Tensor, reach: int) -> torch.Tensor:
    """Weight (1, 1, D, H, W) in [0, 1] that falls off towards the end of the data, from half of ``reach`` voxels on."""
    return valid * smooth(valid.float(), 1, radius=max(1, reach // 2)) ** 4


def symmetrized(forward: DisplacementField, backward: DisplacementField, iterations: int = 5) -> DisplacementField:
    """The forward map of a pair made each other's inverse: u <- (u - w(. + u)) / 2 and likewise w, by turns.

    The mutual correction of ConvexAdam's inverse consistency (Siebert et al., 2021).
    """
    grid = forward.grid
    for _ in range(iterations):
        u = DisplacementField(0.5 * (forward.tensor - _pulled(backward, forward)), grid)
        w = DisplacementField(0.5 * (backward.tensor - _pulled(forward, backward)), grid)
        forward, backward = u, w
    return forward


def affordable(levels: Sequence[Level], counted_mm3: float) -> list[Level]:
    """The levels with the spacing at which no more than ``_VOXELS`` voxels count, within what they allow.

    A level that is hardly finer then than the one before is left out.
    """
    kept: list[Level] = []
    for level in levels:
        if level.coarsest:
            spacing = min(max(level.spacing, (counted_mm3 / _VOXELS) ** (1 / 3)), level.coarsest)
            if kept and spacing > 0.95 * kept[-1].spacing:
                continue
            level = replace(level, spacing=spacing)
        kept.append(level)
    return kept


def _pulled(field: DisplacementField, by: DisplacementField) -> torch.Tensor:
    """field(p + by(p)) on the common grid, edge values continued."""
    return field.after(by).tensor - by.tensor


def run_pyramid(
    scene: Scene,
    extractor: Extractor,
    levels: Sequence[Level],
    *,
    coupling: float,
    box_passes: int = 2,
    forget: Callable[[set[str]], None] | None = None,
    progress: Progress | None = None,
) -> DisplacementField:
    """Solve all levels, coarse to fine; returns the field (before ``scene.initial``) on the last control grid.

    Args:
        forget: told the names of descriptors that will not be asked for again, to let go of them.
    """
    field: DisplacementField | None = None
    levels = affordable(levels, scene.counted_mm3())
    work = np.array([level.spacing**-3 * (2 * level.radius + 1) ** 3 for level in levels])
    ends = np.cumsum(work) / work.sum()
    for number, level in enumerate(levels):
        report = stage(progress, "convex", float(ends[number - 1]) if number else 0.0, float(ends[number]))
        field = solve_level(scene, extractor, level, field, coupling=coupling, box_passes=box_passes, report=report)
        if forget is not None:
            # The last level's descriptors may be wanted for a refinement.
            later = {name for following in (*levels[number + 1 :], levels[-1]) for name in following.features}
            forget(set(level.features) - later)
    if field is None:
        raise ValueError("levels is empty; give at least one Level")
    return field
