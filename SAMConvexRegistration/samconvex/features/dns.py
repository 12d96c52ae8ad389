"""DNS: deep neighborhood self-similarity of MASR-Net, a descriptor that is alike across modalities (CVPR 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..networks.masr import HALO, MASRNet
from ..volume import Volume
from . import FeatureMap

# Descriptors are made slab by slab; a slab's 24 maps and the convolutions on them stay within about 200 MB.
_SLAB_VOXELS = 500_000


class DnsExtractor:
    """DNS as a feature extractor: a volume normalized to [0, 1] -> unit descriptors.

    Args:
        network: in evaluation mode.
        device: where it runs.
    """

    def __init__(self, network: MASRNet, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device)
        self.device = torch.device(device)

    def __call__(self, volume: Volume) -> FeatureMap:
        """Descriptors on the volume's own grid."""
        return self.pooled(volume, 1)

    @torch.inference_mode()
    def pooled(self, volume: Volume, factor: int) -> FeatureMap:
        """Means over blocks of ``factor``^3 voxels, so that the descriptors of all voxels never exist together."""
        image = volume.as_float().to(self.device)
        depth, height, width = image.shape[2:]
        multiple = self.network.multiple
        padding = [(-n) % multiple for n in (depth, height, width)]
        maps = self.network.maps(F.pad(image, (0, padding[2], 0, padding[1], 0, padding[0]), mode="replicate"))
        maps = maps[..., :depth, :height, :width]
        step = max(1, _SLAB_VOXELS // (height * width) // factor) * factor
        # Blocks at the far end that are not whole are left out, as average pooling does.
        parts = []
        for first in range(0, depth // factor * factor, step):
            last = min(first + step, depth // factor * factor)
            lower, upper = max(first - HALO, 0), min(last + HALO, depth)
            described = self.network.describe(maps[:, :, lower:upper])[:, :, first - lower : last - lower]
            parts.append(F.avg_pool3d(described, factor) if factor > 1 else described)
        return FeatureMap(torch.cat(parts, 2).clone(), volume.grid.strided(factor))
