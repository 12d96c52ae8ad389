"""CT intensities as features: Hounsfield units mean the same in every CT; descriptors of structure do not use that."""

from __future__ import annotations

import torch

from ..space.intensity import CT_RANGE
from ..space.volume import FeatureMap, Volume

# Ends of the ramps in HU: lung to soft tissue, fat to muscle and contrast agent, soft tissue to dense bone.
RAMPS = ((-900.0, -150.0), (-150.0, 150.0), (150.0, 900.0))


class Hounsfield:
    """Three ramps from 0 to 1 over the ranges of lung, soft tissue and bone."""

    def __call__(self, volume: Volume) -> FeatureMap:
        """Args: volume: CT whose ``CT_RANGE`` lies in [0, 1] (``space.intensity.normalized_intensity``)."""
        lower, upper = CT_RANGE
        hounsfield = volume.as_float() * (upper - lower) + lower
        ramps = [((hounsfield - first) / (last - first)).clamp_(0, 1) for first, last in RAMPS]
        return FeatureMap(torch.cat(ramps, 1), volume.grid)
