"""The two images as the levels see them: described where points come to lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..features.protocols import FeatureExtractor, PairFeatures
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.sampling import inside, interpolate, slabs
from ..space.transforms import Transform
from ..space.volume import FeatureMap, Volume, resample

Extractor = Callable[[str], FeatureExtractor | PairFeatures]


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
    *,
    spread: bool = True,
) -> FeatureMap:
    """All named features side by side on ``grid``, scaled so that squared distances add with the given weights.

    Args:
        weights: of the descriptors' costs; empty means 1.
        subdivision: image voxels per voxel of ``grid`` along an axis, for descriptors that look at the warped image.
        dtype: of the result.
        spread: the places of the image's voxels are interpolated between those of ``grid``, see :meth:`View.image`;
            otherwise each is computed, for fields finer than ``grid``.
    """
    image = None
    maps = []
    for name, weight in zip(names, weights or (1.0,) * len(names), strict=True):
        descriptor = extractor(name)
        if isinstance(descriptor, PairFeatures):
            tensor = _averaged(view, descriptor, grid)
        else:
            if image is None:
                image = view.image(grid, subdivision) if spread else view.image(grid.subdivided(subdivision), 1)
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
