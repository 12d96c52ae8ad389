"""Organ probabilities as features: what the network of :mod:`samconvex.networks.semantic` sees where.

Kin of UAE-S's semantic head (Bai et al., 2023) and of the weak supervision of SUITS (Blendowski et al., Medical Image
Analysis 2020): the labels of other patients tell what belongs together. Where none of the organs is, all features are
zero and do no harm.
"""

from __future__ import annotations

import numpy as np
import torch

from ..space.sampling import sample
from ..space.volume import FeatureMap


class SemanticPair:
    """Organ probabilities of two volumes as features of the solvers, read where points come to lie.

    Attributes:
        spacing_mm: see :class:`samconvex.features.protocols.PairFeatures`.
    """

    def __init__(self, fixed: FeatureMap, moving: FeatureMap) -> None:
        self._maps = {side: (part.tensor.float(), part.grid) for side, part in (("fixed", fixed), ("moving", moving))}
        self.spacing_mm = fixed.grid.spacing[0]

    def at(self, side: str, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
        """See :class:`samconvex.features.protocols.PairFeatures`; zero outside the body."""
        tensor, grid = self._maps[side]
        return sample(tensor, grid, points, reference=reference, fill=0.0)
