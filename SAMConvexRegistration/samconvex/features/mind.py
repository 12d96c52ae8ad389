"""MIND-SSC: modality-independent neighborhood descriptor, self-similarity context (Heinrich et al., MICCAI 2013)."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F

from ..field import smooth
from ..volume import Volume
from . import FeatureMap

# The six face neighbors in z, y, x; the 12 pairs of them at distance sqrt(2) are the descriptor's channels.
_NEIGHBORS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
_PAIRS = tuple(
    (a, b)
    for a, b in combinations(range(6), 2)
    if sum((p - q) ** 2 for p, q in zip(_NEIGHBORS[a], _NEIGHBORS[b], strict=True)) == 2
)
CHANNELS = len(_PAIRS)


def mind_ssc(image: torch.Tensor, radius: int = 1, dilation: int = 2) -> torch.Tensor:
    """MIND-SSC descriptors.

    Args:
        image: (1, 1, D, H, W) floating point.
        radius: half width of the patch that is compared, in voxels.
        dilation: distance of the compared neighbors, in voxels.

    Returns:
        (1, 12, D, H, W) in (0, 1], 1 for the most similar pair of a voxel.
    """
    d = dilation
    padded = F.pad(image, (d, d, d, d, d, d), mode="replicate")
    depth, height, width = image.shape[2:]

    def shifted(neighbor: int) -> torch.Tensor:
        z, y, x = (d + d * s for s in _NEIGHBORS[neighbor])
        return padded[:, :, z : z + depth, y : y + height, x : x + width]

    distances = torch.empty(1, CHANNELS, depth, height, width, dtype=image.dtype, device=image.device)
    for channel, (a, b) in enumerate(_PAIRS):
        distances[:, channel] = smooth((shifted(a) - shifted(b)).square_(), 1, radius)[:, 0]
    distances -= distances.amin(1, keepdim=True)
    # The mean over pairs estimates the local noise; its clamp keeps flat air from amplifying noise.
    variance = distances.mean(1, keepdim=True)
    average = variance.mean()
    variance.clamp_(float(average) * 1e-3, float(average) * 1e3)
    return distances.div_(variance.clamp_(min=1e-12)).neg_().exp_()


class Mind:
    """MIND-SSC of a volume whose intensities are normalized to [0, 1]."""

    def __init__(self, radius: int = 1, dilation: int = 2) -> None:
        self.radius, self.dilation = radius, dilation

    def __call__(self, volume: Volume) -> FeatureMap:
        return FeatureMap(mind_ssc(volume.as_float(), self.radius, self.dilation), volume.grid)
