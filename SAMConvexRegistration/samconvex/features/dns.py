"""DNS: deep neighborhood self-similarity of MASR-Net, a descriptor that is alike across modalities (CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ..device import cpu_has_bfloat16
from ..networks.masr import HALO, SLAB_VOXELS, MASRNet
from ..space.grid import Grid
from ..space.linear import turn
from ..space.sampling import sample
from ..space.transforms import Transform
from ..space.volume import FeatureMap, Volume, resample

# What a map may hold; larger regions are described more coarsely.
_VOXELS = 4_000_000
# Voxels of a map along each of the finest level's.
_PER_LEVEL_VOXEL = 1.5
# How far beyond the fixed image's region, as the affine maps it, the moving image is described.
_MARGIN_MM = 40.0


class DnsExtractor:
    """DNS as a feature extractor: a volume normalized to [0, 1] -> unit descriptors.

    Args:
        network: in evaluation mode.
        device: where it runs.
        report: called with the share that is done.
    """

    def __init__(
        self, network: MASRNet, device: torch.device | str = "cpu", report: Callable[[float], None] = lambda _: None
    ) -> None:
        self.network = network.to(device)
        self.device = torch.device(device)
        self._report = report

    @torch.no_grad()
    def __call__(self, volume: Volume) -> FeatureMap:
        """Descriptors on the volume's own grid, made slab by slab."""
        self._report(0.0)
        image = volume.as_float().to(self.device)
        depth, height, width = image.shape[2:]
        padding = [(-n) % self.network.multiple for n in (depth, height, width)]
        maps = self.network.maps(F.pad(image, (0, padding[2], 0, padding[1], 0, padding[0]), mode="replicate"))
        maps = maps[..., :depth, :height, :width]
        self._report(0.5)
        step = max(1, SLAB_VOXELS // (height * width))
        result = maps.new_empty(1, self.network.config["channels"], depth, height, width)
        for first in range(0, depth, step):
            last = min(first + step, depth)
            lower, upper = max(first - HALO, 0), min(last + HALO, depth)
            # On a GPU the similarities are no bottleneck, on a CPU the convolutions behind them are most of the work.
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                described = self.network.describe(maps[:, :, lower:upper])
            result[:, :, first:last] = described[:, :, first - lower : last - lower]
            self._report(0.5 + 0.5 * last / depth)
        return FeatureMap(result, volume.grid)


class DnsPair:
    """DNS of two volumes as features of the solvers, made once and read where points come to lie.

    Making it again from the warped image at every level takes five times as long and registers no better: 5.6 and
    5.7 mm on three MR-CT pairs.

    Args:
        extractor: of both volumes.
        fixed, moving: normalized to [0, 1].
        initial: maps fixed to moving points. The moving image is described along its axes, because the neighborhoods
            are not alike when turned.
        box: (2, 3) LPS mm, opposite corners of the region of the fixed image.
        finest: spacing of the finest level, mm; the maps are a little finer, and coarser where the region is large.

    Attributes:
        spacing_mm: see :class:`samconvex.features.protocols.PairFeatures`.
    """

    def __init__(
        self, extractor: DnsExtractor, fixed: Volume, moving: Volume, initial: Transform, box: np.ndarray, finest: float
    ) -> None:
        spacing = finest / _PER_LEVEL_VOXEL
        corners = Grid.covering(box, spacing).corners()
        grids = {
            "fixed": _region(fixed.grid, corners, np.eye(3), 0.0, spacing),
            "moving": _region(moving.grid, initial.map_points(corners), turn(initial, corners), _MARGIN_MM, spacing),
        }
        self.spacing_mm = grids["fixed"].spacing[0]
        self._maps = {
            side: extractor(resample(volume, grids[side], fill=0.0))
            for side, volume in (("fixed", fixed), ("moving", moving))
        }

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """See :class:`samconvex.features.protocols.PairFeatures`; outside the region its edge is repeated."""
        described = self._maps[side]
        return sample(described.tensor, described.grid, points, reference=reference)


def map_voxels(volume_mm3: float, finest: float) -> float:
    """How many voxels :class:`DnsPair` describes in a region of so many cubic millimeters."""
    return min(_VOXELS, volume_mm3 / (finest / _PER_LEVEL_VOXEL) ** 3)


def _region(image: Grid, corners: np.ndarray, axes: np.ndarray, margin_mm: float, spacing: float) -> Grid:
    """Lattice along the columns of ``axes`` over the corners' bounding box, as far as the image reaches."""
    asked, there = corners @ axes, image.corners() @ axes
    low = np.maximum(asked.min(0) - margin_mm, there.min(0))
    # Where the two do not meet there is nothing to describe, but a lattice must be.
    high = np.maximum(np.minimum(asked.max(0) + margin_mm, there.max(0)), low + spacing)
    spacing = max(spacing, float(np.prod(high - low) / _VOXELS) ** (1 / 3))
    upright = Grid.covering(np.stack([low, high]), spacing)
    x, y, z = (axes @ np.asarray(upright.origin)).tolist()
    return Grid(upright.size, upright.spacing, (x, y, z), tuple(axes.flatten().tolist()))
