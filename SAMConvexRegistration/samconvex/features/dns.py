"""DNS: deep neighborhood self-similarity of MASR-Net, a descriptor that is alike across modalities (CVPR 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..networks.masr import HALO, SLAB_VOXELS, MASRNet
from ..volume import Volume
from . import FeatureMap
from .sam import cpu_has_bfloat16


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

    @torch.no_grad()
    def pooled(self, volume: Volume, factor: int) -> FeatureMap:
        """Means over blocks of ``factor``^3 voxels, so that the descriptors of all voxels never exist together."""
        image = volume.as_float().to(self.device)
        depth, height, width = image.shape[2:]
        multiple = self.network.multiple
        padding = [(-n) % multiple for n in (depth, height, width)]
        maps = self.network.maps(F.pad(image, (0, padding[2], 0, padding[1], 0, padding[0]), mode="replicate"))
        maps = maps[..., :depth, :height, :width]
        step = max(1, SLAB_VOXELS // (height * width) // factor) * factor
        # Blocks at the far end that are not whole are left out, as average pooling does.
        channels = self.network.config["channels"]
        result = maps.new_empty(1, channels, depth // factor, height // factor, width // factor)
        for first in range(0, depth // factor * factor, step):
            last = min(first + step, depth // factor * factor)
            lower, upper = max(first - HALO, 0), min(last + HALO, depth)
            # On a GPU the similarities are no bottleneck, on a CPU the convolutions behind them are most of the work.
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                described = self.network.describe(maps[:, :, lower:upper])[:, :, first - lower : last - lower]
            described = F.avg_pool3d(described, factor) if factor > 1 else described
            result[:, :, first // factor : last // factor] = described
        return FeatureMap(result, volume.grid.strided(factor))
