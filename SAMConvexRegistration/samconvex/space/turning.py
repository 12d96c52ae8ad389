"""Images whose header turns the patient: seen as if it did not, and maps carried back.

Neither embeddings nor self-similarity survive a quarter turn, so what lies turned is compared as it would lie upright.
The voxels stay as they are; only their grid turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Grid
from .transforms import AffineTransform
from .volume import FeatureMap, Volume


@dataclass(frozen=True)
class Turn:
    """A turn of an image about a point.

    Attributes:
        matrix: rotation (3, 3) that took the upright image to where its header says it lies.
        center: (3,) LPS mm.
    """

    matrix: np.ndarray
    center: np.ndarray

    @property
    def is_none(self) -> bool:
        return bool(np.array_equal(self.matrix, np.eye(3)))

    def grid_upright(self, grid: Grid) -> Grid:
        return grid.turned(self.matrix.T, self.center)

    def upright(self, volume: Volume) -> Volume:
        """The image without the turn; itself where there is none."""
        return volume if self.is_none else volume.with_tensor(volume.tensor, self.grid_upright(volume.grid))

    def map_back(self, to_upright: AffineTransform) -> AffineTransform:
        """A map to points of the upright image, carried on to points of the image as it lies."""
        return AffineTransform.about(self.center, self.matrix, np.zeros(3)).after(to_upright)

    def map_upright(self, to_image: AffineTransform) -> AffineTransform:
        """The inverse of :meth:`map_back`."""
        return AffineTransform.about(self.center, self.matrix.T, np.zeros(3)).after(to_image)

    def features_back(self, features: FeatureMap) -> FeatureMap:
        """Features of the upright image, placed in the image as it lies."""
        return FeatureMap(features.tensor, features.grid.turned(self.matrix, self.center))
