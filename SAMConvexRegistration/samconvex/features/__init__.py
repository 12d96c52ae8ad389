"""Feature descriptors: vectors of two images that the solvers compare.

Some are cheap and local: they look at the warped image, again at every level. Others come from a network, once for each
image, and are read where points come to lie (feature warping).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch

from ..space.volume import FeatureMap, Volume


class FeatureExtractor(Protocol):
    """What every descriptor offers: a volume on an identity-direction grid in, a feature map on the same frame out."""

    def __call__(self, volume: Volume) -> FeatureMap: ...


@runtime_checkable
class PairFeatures(Protocol):
    """Features of both images, each made once in the image's own frame.

    Attributes:
        spacing_mm: how finely they are worth reading; a coarser grid takes means.
    """

    spacing_mm: float

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """(1, C, d, h, w) of the "fixed" or "moving" image at points (d, h, w, 3), LPS mm relative to ``reference``.

        The points are in the frame of the image asked; zero where it has nothing to say.
        """
        ...
