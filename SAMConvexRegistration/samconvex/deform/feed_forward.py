"""A field in one pass of a network that sees both images (LapIRN, SAM-VoxelMorph): a first stage, or all there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from ..space.field import DisplacementField
from ..space.grid import Grid
from .scene import Extractor, Scene, View, described

# Feature maps of this many voxels stay within about 3 GB; larger regions are seen more coarsely.
VOXELS = 2_000_000


class FieldNetwork(Protocol):
    """A network that predicts where the fixed image's voxels come to lie in the moving one.

    Attributes:
        multiple: sizes it takes are multiples of it.
        spacing_mm: voxel size it was trained at.
        features: name of the descriptors of both images that it also takes, at every second voxel; empty for none.
        axes: "zyx-lps", arrays as here, or "xyz-ras", arrays of x, y, z towards right, anterior, superior.
    """

    multiple: int
    spacing_mm: float
    axes: str
    features: str

    def __call__(self, moving: torch.Tensor, fixed: torch.Tensor, *maps: torch.Tensor) -> torch.Tensor:
        """Images (1, 1, D, H, W) in [0, 1] -> (1, 3, D, H, W), normalized coordinates along the last axis first.

        ``maps`` are the moving and the fixed image's descriptors, (1, C, D/2, H/2, W/2).
        """
        ...


def network_grid(box: np.ndarray, spacing_mm: float, multiple: int) -> Grid:
    """Grid over the (2, 3) LPS mm ``box`` of sizes that a network takes: padded around, coarser where it is large."""
    extent = np.ptp(np.asarray(box, dtype=float), axis=0)
    spacing = max(spacing_mm, float(np.prod(extent + multiple * spacing_mm) / VOXELS) ** (1 / 3))
    size = np.ceil(np.maximum(extent, spacing) / (multiple * spacing)) * multiple
    half = 0.5 * (size - 1) * spacing
    low = np.asarray(box, dtype=float).mean(0) - half
    x, y, z = (int(n) for n in size)
    return Grid((x, y, z), (spacing,) * 3, (float(low[0]), float(low[1]), float(low[2])))


@torch.no_grad()
def predicted(
    network: FieldNetwork,
    scene: Scene,
    extractor: Extractor,
    report: Callable[[float], None],
    field: DisplacementField | None = None,
) -> DisplacementField:
    """The network's field on a grid of the fixed frame, before ``scene.initial``.

    What lies beyond an image is 0 to the network, as air is. The field keeps the network's resolution.

    Args:
        field: what is known already; the network sees the moving image pulled through it.
    """
    report(0.0)
    grid = network_grid(scene.box, network.spacing_mm, network.multiple)
    known = None if field is None else field.on_grid(grid, fill=None)
    views = (View(scene, "moving", known), View(scene, "fixed"))
    moving, fixed = (view.image(grid, 1).tensor for view in views)
    report(0.2)
    maps: list[torch.Tensor] = []
    if network.features:
        maps = [described(view, extractor, (network.features,), (), grid.strided(2), 2).tensor for view in views]
    report(0.5)
    ras = network.axes == "xyz-ras"
    if ras:
        fixed, moving = (_to_ras(image) for image in (fixed, moving))
    # Networks were trained in bfloat16 too where the processor has it.
    with torch.autocast(scene.device.type, torch.bfloat16, enabled=scene.dtype == torch.bfloat16):
        unit = network(moving, fixed, *maps).float()
    found = DisplacementField(in_millimeters(_from_ras(unit) if ras else unit, grid), grid)
    report(1.0)
    return found if known is None else known.after(found)


def in_millimeters(unit: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(1, 3, D, H, W) LPS mm on an identity-direction ``grid`` from normalized coordinates along x, y, z."""
    scale = [0.5 * s * (n - 1) for s, n in zip(grid.spacing, grid.size, strict=True)]
    return unit * torch.tensor(scale, device=unit.device).view(1, 3, 1, 1, 1)


def _to_ras(image: torch.Tensor) -> torch.Tensor:
    """(1, C, z, y, x) of LPS to (1, C, x, y, z) of RAS: left becomes right, posterior anterior."""
    return image.permute(0, 1, 4, 3, 2).flip(2, 3).contiguous()


def _from_ras(unit: torch.Tensor) -> torch.Tensor:
    """A displacement in arrays of x, y, z of RAS, components along the last axis (z) first, back to LPS."""
    z, y, x = unit.flip(2, 3).permute(0, 1, 4, 3, 2).split(1, 1)
    return torch.cat([-x, -y, z], 1)
