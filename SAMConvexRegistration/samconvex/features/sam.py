"""SAM features: anatomical embeddings of a volume (Yan et al., IEEE TMI 2022), for matching and for registration.

A volume is brought onto an identity-direction grid at the network's spacing, everything outside the body becomes air,
and the network maps it to a fine and a coarse field of unit vectors. The descriptor of a point joins both, so that the
dot product of two descriptors is the mean of the two cosines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..anatomy.embed import network_maps
from ..anatomy.embedding import SamEmbedding
from ..space.intensity import CT_RANGE
from ..space.sampling import sample
from ..space.volume import FeatureMap, Volume

if TYPE_CHECKING:
    from ..weights.models import SamModel


class SamPair:
    """Embeddings of two volumes as features of the solvers, read where points come to lie.

    The original extracts them again from the warped image at every level (:class:`SamAnew`). Reading the embeddings
    made once for the affine costs a fifth of that; on two pairs of training patients the paper's levels reach a Dice of
    0.684 so and of 0.699 anew.

    Attributes:
        spacing_mm: see :class:`samconvex.features.protocols.PairFeatures`.
        kept: share of the squared distances between descriptors that the reduced channels keep.

    Args:
        parts: "fine", "coarse" or "both" (joined; dot products are the mean of both cosines).
        channels: descriptors are projected on this many principal directions of both volumes; 0 keeps all.
    """

    spacing_mm = 6.0

    def __init__(self, fixed: SamEmbedding, moving: SamEmbedding, parts: str = "both", channels: int = 32) -> None:
        vectors = [_part_vectors(embedding, parts) for embedding in (fixed, moving)]
        self.kept = 1.0
        if channels and channels < vectors[0].shape[1]:
            projection, self.kept = _principal(vectors, channels)
            vectors = [each @ projection.to(each.dtype) for each in vectors]
        self._maps = {
            side: FeatureMap(_dense(embedding, each), embedding.fine.grid)
            for side, embedding, each in zip(("fixed", "moving"), (fixed, moving), vectors, strict=True)
        }

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """See :class:`samconvex.features.protocols.PairFeatures`; zero outside the body."""
        described = self._maps[side]
        return sample(described.tensor, described.grid, points, reference=reference, fill=0.0)


class SamAnew:
    """Embeddings made of the image that is looked at, as SAMConvex makes them at every level.

    A level's image is the mean over blocks of the working image; its features lie at the network's fine stride.

    Args:
        model: an embedding network of volumes.
        parts: "fine", or "both" (joined with the coarse ones; dot products are the mean of both cosines).
        device: where it runs.
    """

    def __init__(self, model: SamModel, parts: str, device: torch.device) -> None:
        self.model, self.parts, self.device = model, parts, device
        self.stride = model.fine_stride[0]

    def __call__(self, volume: Volume) -> FeatureMap:
        """Descriptors on the volume's own grid, interpolated from the network's stride."""
        maps = self._described(volume.as_float())
        size = [n * self.stride for n in maps.shape[2:]]
        dense = F.interpolate(maps, size=size, mode="trilinear", align_corners=False)
        depth, height, width = volume.grid.shape
        return FeatureMap(dense[:, :, :depth, :height, :width].contiguous(), volume.grid)

    def pooled(self, volume: Volume, factor: int) -> FeatureMap:
        """Descriptors of blocks of ``factor``^3 voxels: of the image averaged to the network's stride of them."""
        if factor % self.stride or any(n % factor for n in volume.grid.shape):
            return FeatureMap(F.avg_pool3d(self(volume).tensor, factor), volume.grid.strided(factor))
        image = F.avg_pool3d(volume.as_float(), factor // self.stride)
        return FeatureMap(self._described(image), volume.grid.strided(factor))

    def _described(self, image: torch.Tensor) -> torch.Tensor:
        """(1, C, D, H, W) of an image (1, 1, ...) whose ``CT_RANGE`` lies in [0, 1], at the fine stride."""
        lower, upper = CT_RANGE
        size = [-(-n // self.stride) for n in image.shape[2:]]
        # Beyond the image is air.
        padding = [(-n) % m for n, m in zip(image.shape[2:], reversed(self.model.multiple), strict=True)]
        image = F.pad(image, (0, padding[2], 0, padding[1], 0, padding[0]))
        fine, coarse = network_maps(self.model, self.model.prepare(image * (upper - lower) + lower), self.device)
        maps = F.normalize(fine.float(), dim=1)
        if self.parts == "both":
            spread = F.interpolate(coarse.float(), size=fine.shape[2:], mode="trilinear", align_corners=False)
            maps = torch.cat([maps, F.normalize(spread, dim=1)], 1) * 0.5**0.5
        return maps[:, :, : size[0], : size[1], : size[2]].contiguous()


def _part_vectors(embedding: SamEmbedding, parts: str) -> torch.Tensor:
    """(V, C) unit descriptors of the body's voxels."""
    vectors = embedding.search.vectors
    fine = embedding.fine.tensor.shape[1]
    if parts == "both":
        return vectors
    # Joined vectors hold either part at a length of sqrt(1/2).
    return (vectors[:, :fine] if parts == "fine" else vectors[:, fine:]) * 2**0.5


def _principal(vectors: list[torch.Tensor], channels: int) -> tuple[torch.Tensor, float]:
    """(C, channels) projection that keeps most of the scatter of both bodies' descriptors, and that share."""
    drawn = torch.cat([each[:: max(1, len(each) // 4000)] for each in vectors]).float()
    energy, directions = torch.linalg.eigh(torch.cov(drawn.T))
    return directions[:, -channels:].contiguous(), float(energy[-channels:].sum() / energy.sum())


def _dense(embedding: SamEmbedding, vectors: torch.Tensor) -> torch.Tensor:
    """(1, C, d, h, w) float32 on the fine grid, zero outside the body."""
    grid = embedding.fine.grid
    output = torch.zeros(grid.voxel_count, vectors.shape[1], device=vectors.device)
    output[embedding.search.voxels] = vectors.float()
    return output.T.contiguous().view(1, -1, *grid.shape)
