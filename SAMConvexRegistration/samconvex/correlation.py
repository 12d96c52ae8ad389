"""Local correlation of two feature maps: the cost of every candidate displacement at every voxel.

The cost is half the squared feature distance, 0.5 |f(x) - m(x + d)|^2, for all d in a cube of half width ``radius``
voxels; for unit vectors that is 1 - cosine, the cost of SAMConvex (Li et al., MICCAI 2023, section 2.2). It is exact:
tiles of the fixed map are multiplied with their window of the moving map as one batched matrix product (a Gram
matrix) of which the band of wanted displacements is kept. Slabs of slices bound the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

# Voxels of a tile in y and x: a larger one multiplies less of its window in vain, a smaller one wastes less at edges.
_TILE = (4, 16)
INVALID = 1.0e4


class LocalCorrelation:
    """Costs of all displacements within a cube, computed slab by slab and kept while they fit the budget.

    Args:
        fixed: (1, C, D, H, W) features.
        moving: (1, C, D + 2 r, H + 2 r, W + 2 r) features on the fixed grid padded by ``radius`` voxels.
        radius: half width r of the displacement cube in voxels.
        valid: (1, 1, D + 2 r, ...) bool, False where the moving image has no data: such candidates cost ``INVALID``
            (repeating edge values instead would tie with real candidates).
        weight: (1, 1, D, H, W) multiplies the cost of a fixed voxel; 0 leaves the voxel to the regularization.
        memory_budget: bytes that costs may occupy; beyond it slabs are recomputed on every pass.
        dtype: precision of the matrix product (torch.float32 or torch.bfloat16).
    """

    def __init__(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        radius: int,
        *,
        valid: torch.Tensor | None = None,
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
        self._dtype = dtype
        self._weight = None if weight is None else weight[0, 0, ..., None].float()
        self._fixed_square = fixed.float().square().sum(1)[0]
        self._moving_square = moving.float().square().sum(1)[0]
        if valid is not None:
            self._moving_square = self._moving_square + (~valid[0, 0]) * (2 * INVALID)
        height, width = self.shape[1:]
        self._pad = ((-height) % _TILE[0], (-width) % _TILE[1])
        pad = (0, 0, 0, self._pad[1], 0, self._pad[0])
        self._fixed = F.pad(fixed[0].permute(1, 2, 3, 0), pad).to(dtype)
        self._moving = F.pad(moving[0].permute(1, 2, 3, 0), pad).to(dtype)
        slice_bytes = 4 * height * width * self.count
        # The Gram matrices of a slab take about ten times its costs per displacement plane.
        self._depth = max(1, min(self.shape[0], memory_budget // (6 * slice_bytes)))
        self._keep = 2 * slice_bytes * self.shape[0] <= memory_budget
        self._kept: dict[int, torch.Tensor] = {}

    @property
    def count(self) -> int:
        """Number of candidate displacements K = (2 r + 1)^3."""
        return (2 * self.radius + 1) ** 3

    def displacements(self) -> torch.Tensor:
        """(K, 3) candidates in voxels, components x, y, z, in the order of the costs' last axis."""
        steps = torch.arange(-self.radius, self.radius + 1, dtype=torch.float32, device=self._fixed.device)
        z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
        return torch.stack([x.flatten(), y.flatten(), z.flatten()], 1)

    def __iter__(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield (z0, z1, costs (z1 - z0, H, W, K) float32) over all slices."""
        for z0 in range(0, self.shape[0], self._depth):
            z1 = min(z0 + self._depth, self.shape[0])
            costs = self._kept.get(z0)
            if costs is None:
                costs = self._slab(z0, z1)
                if self._keep:
                    self._kept[z0] = costs
            yield z0, z1, costs

    def _slab(self, z0: int, z1: int) -> torch.Tensor:
        reach = 2 * self.radius + 1
        (tile_h, tile_w), depth = _TILE, z1 - z0
        fixed = self._fixed[z0:z1]
        channels = fixed.shape[-1]
        rows, columns = fixed.shape[1] // tile_h, fixed.shape[2] // tile_w
        window_h, window_w = tile_h + reach - 1, tile_w + reach - 1
        tiles = fixed.reshape(depth, rows, tile_h, columns, tile_w, channels).permute(0, 1, 3, 2, 4, 5)
        tiles = tiles.reshape(depth, rows * columns, tile_h * tile_w, channels)
        windows = self._moving[z0 : z1 + reach - 1].unfold(1, window_h, tile_h).unfold(2, window_w, tile_w)
        windows = windows.reshape(depth + reach - 1, rows * columns, channels, window_h * window_w)
        costs = torch.empty(
            depth, rows, tile_h, columns, tile_w, reach, reach, reach, dtype=torch.float32, device=fixed.device
        )
        batch = depth * rows * columns
        for dz in range(reach):
            gram = torch.bmm(tiles.flatten(0, 1), windows[dz : dz + depth].flatten(0, 1))
            # Entry (i, j) of a tile against (i + dy, j + dx) of its window: a strided view of the Gram matrix.
            row = window_h * window_w
            strides = (tile_h * tile_w * row, tile_w * row + window_w, row + 1, window_w, 1)
            band = gram.as_strided((batch, tile_h, tile_w, reach, reach), strides)
            band = band.reshape(depth, rows, columns, tile_h, tile_w, reach, reach).permute(0, 1, 3, 2, 4, 5, 6)
            costs[..., dz, :, :] = band
        height, width = self.shape[1:]
        costs = costs.view(depth, rows * tile_h, columns * tile_w, reach, reach, reach)
        costs = costs[:, :height, :width].neg_()
        square = self._moving_square[z0 : z1 + reach - 1]
        costs += 0.5 * square.unfold(0, reach, 1).unfold(1, reach, 1).unfold(2, reach, 1)
        costs = costs.reshape(depth, height, width, self.count)
        costs += 0.5 * self._fixed_square[z0:z1, ..., None]
        if self._weight is not None:
            costs *= self._weight[z0:z1]
        return costs
