"""MIND-SSC: modality-independent neighborhood descriptor, self-similarity context (Heinrich et al., MICCAI 2013)."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F

from ..space.filters import smooth
from ..space.totals import mean
from ..space.volume import FeatureMap, Volume

# The six face neighbors in z, y, x; the 12 pairs of them at distance sqrt(2) are the descriptor's channels.
_NEIGHBORS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
_PAIRS = tuple(
    (a, b)
    for a, b in combinations(range(6), 2)
    if sum((p - q) ** 2 for p, q in zip(_NEIGHBORS[a], _NEIGHBORS[b], strict=True)) == 2
)
CHANNELS = len(_PAIRS)
# Temporary tensors below 32 MB come from memory that the allocator reuses; larger ones are cleared every time.
_SLAB_VOXELS = 3_000_000


def mind_ssc(image: torch.Tensor, radius: int = 1, dilation: int = 2) -> torch.Tensor:
    """MIND-SSC descriptors.

    Args:
        image: (1, 1, D, H, W) floating point.
        radius: half width of the patch that is compared, in voxels.
        dilation: distance of the compared neighbors, in voxels.

    Returns:
        (1, 12, D, H, W) in (0, 1], 1 for the most similar pair of a voxel.
    """
    depth, height, width = image.shape[2:]
    padded = F.pad(image, (dilation,) * 6, mode="replicate")
    distances = torch.empty(1, CHANNELS, depth, height, width, dtype=image.dtype, device=image.device)
    variance = torch.empty_like(distances[:, :1])
    step = max(4 * radius, _SLAB_VOXELS // (height * width), 1)
    slabs = [(first, min(first + step, depth)) for first in range(0, depth, step)]
    for first, last in slabs:
        lower, upper = max(first - radius, 0), min(last + radius, depth)

        def shifted(neighbor: int, lower: int = lower, upper: int = upper) -> torch.Tensor:
            z, y, x = (dilation + dilation * s for s in _NEIGHBORS[neighbor])
            return padded[:, :, lower + z : upper + z, y : y + height, x : x + width]

        part = distances[:, :, first:last]
        for channel, (a, b) in enumerate(_PAIRS):
            distance = smooth((shifted(a) - shifted(b)).square_(), 1, radius)
            part[:, channel] = distance[:, 0, first - lower : last - lower]
        part -= part.amin(1, keepdim=True)
        # The mean over pairs estimates the local noise.
        variance[:, :, first:last] = part.mean(1, keepdim=True)
    # Its clamp keeps flat air from amplifying noise.
    average = float(mean(variance))
    variance.clamp_(average * 1e-3, average * 1e3).clamp_(min=1e-12).reciprocal_().neg_()
    for first, last in slabs:
        distances[:, :, first:last].mul_(variance[:, :, first:last]).exp_()
    return distances


class Mind:
    """MIND-SSC of a volume whose intensities are normalized to [0, 1]."""

    def __init__(self, radius: int = 1, dilation: int = 2) -> None:
        self.radius, self.dilation = radius, dilation

    def __call__(self, volume: Volume) -> FeatureMap:
        return FeatureMap(mind_ssc(volume.as_float(), self.radius, self.dilation), volume.grid)
