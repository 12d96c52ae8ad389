"""FeatCNN descriptors (SUITS): learned, dense, the same length as MIND's, one input branch per modality."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..networks.featcnn import FeatCNN
from ..space.volume import FeatureMap, Volume


class FeatCnnExtractor:
    """FeatCNN as a feature extractor: a volume normalized to [0, 1] -> 12 descriptor channels.

    Args:
        network: in evaluation mode.
        device: where it runs.
    """

    def __init__(self, network: FeatCNN, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device)
        self.device = torch.device(device)

    def __call__(self, volume: Volume) -> FeatureMap:
        """Descriptors on the volume's own grid, interpolated from the network's stride."""
        tensor = self._described(volume)
        size = [n * self.network.stride for n in tensor.shape[2:]]
        dense = F.interpolate(tensor, size=size, mode="trilinear", align_corners=False)
        depth, height, width = volume.grid.shape
        return FeatureMap(dense[:, :, :depth, :height, :width].contiguous(), volume.grid)

    def pooled(self, volume: Volume, factor: int) -> FeatureMap:
        """Descriptors of blocks of ``factor``^3 voxels; without a detour where that is the network's stride."""
        stride = self.network.stride
        if factor % stride or any(n % factor for n in volume.grid.shape):
            return FeatureMap(F.avg_pool3d(self(volume).tensor, factor), volume.grid.strided(factor))
        tensor = self._described(volume)
        return FeatureMap(F.avg_pool3d(tensor, factor // stride), volume.grid.strided(factor))

    @torch.inference_mode()
    def _described(self, volume: Volume) -> torch.Tensor:
        image = volume.as_float().to(self.device)
        padding = [(-n) % self.network.stride for n in image.shape[2:]]
        image = F.pad(image, (0, padding[2], 0, padding[1], 0, padding[0]), mode="replicate")
        return self.network(image, volume.modality).clone()
