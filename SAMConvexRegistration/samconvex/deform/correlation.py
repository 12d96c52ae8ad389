"""Local correlation of two feature maps: the cost of every candidate displacement at every voxel that counts.

The cost is half the squared feature distance, 0.5 |f(x) - m(x + d)|^2, for all d in a cube of half width ``radius``
voxels; for unit vectors that is 1 - cosine, the cost of SAMConvex (Li et al., MICCAI 2023, section 2.2). It is exact:
tiles of the fixed map are multiplied with their window of the moving map as one batched matrix product (a Gram
matrix) of which the band of wanted displacements is kept. Tiles without weight are skipped; batches of tiles bound the
memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ..settings.registration import FORBIDDEN

# Voxels of a tile in z, y, x: a larger one multiplies less of its window in vain, a smaller one wastes less at edges.
_TILE = (4, 4, 4)
_TILE_VOXELS = _TILE[0] * _TILE[1] * _TILE[2]


def _squares(vectors: torch.Tensor) -> torch.Tensor:
    """(..., 1) squared lengths along the last axis, float32, without a float32 copy of the vectors."""
    # In parts: three times as fast as a vector norm that accumulates in float32.
    parts = [part.float().square().sum(1, keepdim=True) for part in vectors.flatten(0, -2).split(1 << 15)]
    return torch.cat(parts).view(*vectors.shape[:-1], 1)


def _split(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """``values`` as a sum of two of ``dtype``: twice the digits."""
    high = values.to(dtype)
    return high, (values - high.float()).to(dtype)


class LocalCorrelation:
    """Costs of all displacements within a cube, computed by batches of tiles and kept while they fit the budget.

    Args:
        fixed: (1, C, D, H, W) features.
        moving: (1, C, D + 2 r, H + 2 r, W + 2 r) features on the fixed grid padded by ``radius`` voxels.
        radius: half width r of the displacement cube in voxels.
        valid: (1, 1, D + 2 r, ...) bool, False where the moving image has no data (repeating edge values instead would
            tie with real candidates).
        unseen: added to the costs of candidates without data.
        weight: (1, 1, D, H, W) multiplies the cost of a fixed voxel; voxels of weight 0 are left out.
        memory_budget: bytes that costs may occupy; beyond it they are recomputed on every pass.
        dtype: precision of the matrix product (torch.float32 or torch.bfloat16).
    """

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        radius: int,
        *,
        valid: torch.Tensor | None = None,
        unseen: float = FORBIDDEN,
        weight: torch.Tensor | None = None,
        memory_budget: int = 1 << 30,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        expected = tuple(s + 2 * radius for s in fixed.shape[2:])
        if fixed.shape[:2] != moving.shape[:2] or tuple(moving.shape[2:]) != expected:
            wanted = (1, fixed.shape[1], *expected)
            raise ValueError(f"moving features must have shape {wanted}, not {tuple(moving.shape)}")
        self.radius = radius
        self.shape = tuple(int(s) for s in fixed.shape[2:])
        depth, height, width = self.shape
        pad = (0, -width % _TILE[2], 0, -height % _TILE[1], 0, -depth % _TILE[0])
        if weight is None:
            weight = torch.ones_like(fixed[:, :1], dtype=torch.float32)
        # Weight and squared lengths are channels of the matrix product, so that its result is the cost itself:
        # w |f - m|^2 / 2 = (-w f, |w f|^2 / 2w, w) (m, 1, |m|^2 / 2).
        weights = self._tiled(F.pad(weight[0].float(), pad))
        self._tiles = (weights[..., 0] > 0).any(-1).nonzero()[:, 0]
        weights = weights[self._tiles]
        features = self._tiled(F.pad(fixed[0], pad).to(dtype))[self._tiles]
        factor = weights.to(dtype)
        features = features * -factor
        square = 0.5 * _squares(features) / factor.float().clamp(min=1e-12)
        self._fixed = torch.cat([features, *_split(square, dtype), factor, factor], -1)
        target = F.pad(moving[0].permute(1, 2, 3, 0), (0, 0, *pad)).to(dtype)
        square = 0.5 * _squares(target)
        if valid is not None:
            square += F.pad(~valid[0, 0], pad, value=True)[..., None] * unseen
        ones = torch.ones((), dtype=dtype, device=fixed.device).expand(*target.shape[:-1], 1)
        self._moving = torch.cat([target, ones, ones, *_split(square, dtype)], -1)
        # The voxel of every row of the costs, as a flat index into (D, H, W); padding voxels drop out.
        index = torch.arange(depth * height * width, device=fixed.device).view(1, depth, height, width)
        rows = self._tiled(F.pad(index, pad, value=-1))[self._tiles, :, 0]
        self._voxels = rows.masked_fill(weights[..., 0] <= 0, -1)
        row_bytes = self._fixed.element_size() * self.count * _TILE_VOXELS
        # What a batch of costs goes through stays in the caches.
        self._batch = max(1, min((1 << 19) // (self.count * _TILE_VOXELS), memory_budget // (8 * row_bytes)))
        index = self._band_index().to(fixed.device)
        # Written out: gathering would copy an expanded index every time.
        self._band = index.expand(min(self._batch, len(self._tiles)), -1, -1).contiguous()
        self._keep = row_bytes * len(self._tiles) <= memory_budget
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def count(self) -> int:
        """Number of candidate displacements K = (2 r + 1)^3."""
        return (2 * self.radius + 1) ** 3

    def displacements(self) -> torch.Tensor:
        """(K, 3) candidates in voxels, components x, y, z, in the order of the costs' last axis."""
        steps = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32, device=self._fixed.device)
        z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
        return torch.stack([x.flatten(), y.flatten(), z.flatten()], 1)

    def __iter__(self) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
        """Yield (finished fraction, flat voxel indices (N,), costs (N, K) in ``dtype``) over all voxels with weight."""
        for first in range(0, len(self._tiles), self._batch):
            batch = self._kept.get(first)
            if batch is None:
                batch = self._costs(slice(first, first + self._batch))
                if self._keep:
                    self._kept[first] = batch
            yield min(1.0, (first + self._batch) / len(self._tiles)), *batch

    @staticmethod
    def _tiled(tensor: torch.Tensor) -> torch.Tensor:
        """(C, D, H, W), multiples of the tile, to (tiles, voxels of a tile, C)."""
        channels = len(tensor)
        folded = [part for n, tile in zip(tensor.shape[1:], _TILE, strict=True) for part in (n // tile, tile)]
        tiles = tensor.view(channels, *folded)
        return tiles.permute(1, 3, 5, 2, 4, 6, 0).reshape(-1, _TILE_VOXELS, channels)

    def _band_index(self) -> torch.Tensor:
        """(voxels of a tile, K): where in its flattened window each voxel of a tile finds its candidates."""
        reach = 2 * self.radius + 1
        depth, height, width = (torch.arange(tile + reach - 1) for tile in _TILE)
        place = (depth[:, None, None] * len(height) + height[:, None]) * len(width) + width
        for axis in range(3):
            place = place.unfold(axis, reach, 1)  # (tile z, y, x, then reach z, y, x)
        return place.reshape(_TILE_VOXELS, -1)

    def _costs(self, batch: slice) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = (-(-n // tile) for n, tile in zip(self.shape[1:], _TILE[1:], strict=True))
        tiles = self._tiles[batch]
        z, y, x = tiles // (rows * columns), tiles // columns % rows, tiles % columns
        # All windows as a view, channels last; indexing copies those of the wanted tiles.
        windows = self._moving
        for axis, tile in enumerate(_TILE):
            windows = windows.unfold(axis, tile + 2 * self.radius, tile)
        window = windows.movedim(3, -1)[z, y, x].flatten(1, 3)
        # Of a tile's voxels against its window only the band of wanted displacements is kept.
        gram = torch.bmm(self._fixed[batch], window.transpose(1, 2))
        result = gram.gather(2, self._band[: len(tiles)]).flatten(0, 1)
        voxels = self._voxels[batch].flatten()
        counted = (voxels >= 0).nonzero()[:, 0]
        if len(counted) < len(voxels):
            result, voxels = result.index_select(0, counted), voxels[counted]
        return voxels, result
