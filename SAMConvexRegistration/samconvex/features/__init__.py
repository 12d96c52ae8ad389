"""Feature descriptors: each turns a volume on a working grid into a feature map that the solvers compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from ..geometry import Grid
from ..volume import Volume


@dataclass(frozen=True)
class FeatureMap:
    """Feature vectors on a grid.

    Attributes:
        tensor: (1, C, D, H, W).
        grid: where the vectors lie.
    """

    tensor: torch.Tensor
    grid: Grid


class FeatureExtractor(Protocol):
    """What every descriptor offers: a volume on an identity-direction grid in, a feature map on the same frame out."""

    def __call__(self, volume: Volume) -> FeatureMap: ...
