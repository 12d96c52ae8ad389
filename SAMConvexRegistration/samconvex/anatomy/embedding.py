"""Embeddings of points and places (SAM, Yan et al., IEEE TMI 2022): looked up, joined and searched."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from ..device import cpu_has_bfloat16
from ..space.grid import Grid
from ..space.sampling import sample, slabs
from ..space.volume import FeatureMap

# Consecutive rows of a search index that are first judged together.
BLOCK_ROWS = 16


@dataclass(frozen=True, eq=False)
class SamEmbedding:
    """What the network says about a volume.

    Attributes:
        fine: (1, C, d, h, w) unit vectors, half precision.
        coarse: the same at the coarse stride.
        body: bool (d, h, w) on the fine grid.
        network: sha256 of the weights; embeddings of different networks do not compare.
        grid: grid of the volume that was embedded.
    """

    fine: FeatureMap
    coarse: FeatureMap
    body: torch.Tensor
    network: str
    grid: Grid
    calibration: dict[str, float] = field(default_factory=dict)

    def descriptors(self, points: np.ndarray) -> torch.Tensor:
        """(N, Cf + Cc) float32 unit descriptors interpolated at LPS points (N, 3)."""
        points = np.asarray(points, dtype=float)
        center = self.fine.grid.center
        relative = torch.as_tensor(points - center, dtype=torch.float32)
        relative = relative.to(self.fine.tensor.device)[None, None]
        return join(
            *(_sample_map(_around(part, points), relative, center)[0, :, 0, 0].T for part in (self.fine, self.coarse))
        )

    @property
    def bytes(self) -> int:
        """With the search vectors that come on first use."""
        channels = self.fine.tensor.shape[1] + self.coarse.tensor.shape[1]
        return 2 * (self.fine.tensor.numel() + self.coarse.tensor.numel()) + 2 * channels * int(self.body.sum())

    @cached_property
    def search(self) -> SearchIndex:
        """Descriptors of every fine voxel in the body, made once, for matching."""
        return SearchIndex(self)

    @property
    def device(self) -> torch.device:
        return self.fine.tensor.device


class SearchIndex:
    """All body voxels of an embedding as one matrix.

    Attributes:
        vectors: (V, C) unit descriptors, bfloat16 where the processor multiplies it natively, else float32.
        voxels: (V,) flat index into the fine grid.
        dense: (d, h, w) row of ``vectors`` of each voxel, -1 outside the body.
    """

    def __init__(self, embedding: SamEmbedding) -> None:
        grid, device = embedding.fine.grid, embedding.device
        dtype = torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32
        if device.type == "cuda":
            dtype = torch.float16
        self.voxels = torch.nonzero(embedding.body.flatten())[:, 0]
        self.dense = torch.full((grid.voxel_count,), -1, dtype=torch.int32, device=device)
        self.dense[self.voxels] = torch.arange(len(self.voxels), dtype=torch.int32, device=device)
        self.dense = self.dense.view(grid.shape)
        channels = embedding.fine.tensor.shape[1] + embedding.coarse.tensor.shape[1]
        self.vectors = torch.empty(len(self.voxels), channels, dtype=dtype, device=device)
        plane = grid.size[0] * grid.size[1]
        # The coarse grid's blocks fill the fine grid: in the plane at once, between planes as they come.
        planes = F.interpolate(embedding.coarse.tensor[0].transpose(0, 1).float(), size=grid.shape[1:], mode="bilinear")
        stride = grid.shape[0] / len(planes)
        for z0, z1 in slabs(grid, 200_000):
            ends = torch.tensor([z0 * plane, z1 * plane], device=device)
            first, last = torch.searchsorted(self.voxels, ends).tolist()
            if first == last:
                continue
            inside = self.voxels[first:last] - z0 * plane
            level = ((torch.arange(z0, z1, device=device) + 0.5) / stride - 0.5).clamp(0, len(planes) - 1)
            below = level.long().clamp(max=max(len(planes) - 2, 0))
            above = (below + 1).clamp(max=len(planes) - 1)
            coarse = torch.lerp(planes[below], planes[above], (level - below).view(-1, 1, 1, 1))
            coarse = coarse.permute(0, 2, 3, 1).flatten(0, 2)[inside]
            fine = embedding.fine.tensor[0, :, z0:z1].permute(1, 2, 3, 0).flatten(0, 2)[inside]
            self.vectors[first:last] = join(fine, coarse).to(dtype)
        self._grid = grid

    @cached_property
    def places(self) -> torch.Tensor:
        """(V, 3) float32 LPS mm of the voxels, relative to the fine grid's center."""
        centers = self._grid.voxel_centers(reference=self._grid.center, device=self.voxels.device)
        return centers.reshape(-1, 3)[self.voxels]

    @cached_property
    def thinned(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of every second voxel along each axis, and their vectors."""
        rows = self.dense[::2, ::2, ::2].flatten().long()
        rows = rows[rows >= 0]
        return (rows, self.vectors[rows]) if len(rows) else (torch.arange(len(self.voxels)), self.vectors)

    @cached_property
    def boxes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest corners (B, 3) of the places of every ``BLOCK_ROWS`` consecutive rows."""
        missing = -len(self.places) % BLOCK_ROWS
        padded = torch.cat([self.places, self.places[-1:].expand(missing, 3)]).view(-1, BLOCK_ROWS, 3)
        return padded.amin(1), padded.amax(1)


def join(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """(N, Cf) and (N, Cc) to (N, Cf + Cc) unit vectors; dot products are the mean of both cosines."""
    parts = (F.normalize(fine.float(), dim=1), F.normalize(coarse.float(), dim=1))
    return torch.cat(parts, 1).mul_(0.5**0.5)


def _around(part: FeatureMap, points: np.ndarray) -> FeatureMap:
    """The part of a map that interpolation at the points (N, 3) looks at: a single point must not cost a whole body."""
    if not len(points):
        return part
    last = np.asarray(part.grid.size) - 1
    voxels = part.grid.points_to_voxels(points)
    low = np.clip(np.floor(voxels.min(0)), 0, last).astype(int)
    # Two voxels along every axis: normalized coordinates need an extent.
    low = np.minimum(low, np.maximum(last - 1, 0))
    high = np.minimum(np.maximum(np.clip(np.floor(voxels.max(0)), 0, last).astype(int) + 1, low + 1), last)
    x, y, z = (slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    size = tuple((high - low + 1).tolist())
    return FeatureMap(part.tensor[:, :, z, y, x], part.grid.cropped(tuple(low.tolist()), size))


def _sample_map(part: FeatureMap, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
    return sample(part.tensor.float(), part.grid, points, reference=reference)
