"""The compact anatomical embedding network for X-ray images: :mod:`.sam_compact` with every layer in the plane.

Images travel as (B, 1, 1, H, W), so that all that handles embeddings of volumes handles those of single slices too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .sam_compact import SAMCompact

CHECKPOINT_FORMAT = "samconvex-sam-2d"
CHECKPOINT_VERSION = 1

LOWER, UPPER = 0.01, 0.99
LIMIT = 1.5

PREPROCESSING: dict[str, Any] = {"kind": "quantiles", "lower": LOWER, "upper": UPPER, "limit": LIMIT, "air_value": 0.0}


def preprocess(image: Tensor) -> Tensor:
    """X-ray of any unit (B, 1, 1, H, W), dense tissue bright -> network input: 0 for air, about 1 for the densest."""
    flat = image.float().flatten(1)
    quantiles = torch.quantile(flat, torch.tensor([LOWER, UPPER], device=flat.device), dim=1)
    lower, upper = (part.view(-1, 1, 1, 1, 1) for part in quantiles)
    return ((image.float() - lower) / (upper - lower).clamp(min=1e-6)).clamp(0, LIMIT)


class SAM2D(SAMCompact):
    """Coarse and fine anatomical embeddings of an X-ray image; arguments as those of :class:`SAMCompact`."""

    dimension = 2
    preprocess = staticmethod(preprocess)

    def raw_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Preprocessed (B, 1, 1, H, W) -> fine (B, Cf, 1, H/2, W/2) and coarse (B, Cc, 1, H/8, W/8)."""
        if x.ndim != 5 or x.shape[1:3] != (1, 1) or any(n % self.multiple for n in x.shape[3:]):
            raise ValueError(
                f"input must be (B, 1, 1, H, W) with sizes that are multiples of {self.multiple}, not {tuple(x.shape)}"
            )
        fine, coarse = self.pyramid(x[:, :, 0])
        return fine[:, :, None], coarse[:, :, None]
