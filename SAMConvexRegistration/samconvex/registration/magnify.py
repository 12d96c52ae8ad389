"""Bodies far from human size, such as animals and phantoms, are registered as if they were as large as a human."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..space.transforms import Transform
from ..space.volume import Volume, check_shape, check_volume
from .finish import Maps
from .options import Options
from .prepare import Prepared

# Every setting in millimeters is meant for a body of about this size.
_HUMAN_MM = 400.0
# A crop of a human is this small too, but in voxels of a human's images.
_SMALL_MM, _SMALL_VOXEL_MM = 150.0, 0.75
_LARGE_MM = 3000.0

V = TypeVar("V", Volume, Volume | None)


@dataclass(frozen=True)
class Magnification:
    """How many times as large both images are treated; 1 for humans.

    Attributes:
        factor: on every length.
        note: what is said of it.
    """

    factor: float = 1.0
    note: str | None = None

    @classmethod
    def of(cls, fixed: Volume, moving: Volume) -> Magnification:
        """One factor for both images, by the larger of them.

        Raises:
            InputError: something else than two usable volumes.
        """
        for image in (fixed, moving):
            check_volume(image)
        larger = max((fixed, moving), key=lambda image: float(image.grid.extent.max()))
        size = float(larger.grid.extent.max())
        voxel = max(float(np.median(image.grid.spacing)) for image in (fixed, moving))
        small = size < _SMALL_MM and voxel <= _SMALL_VOXEL_MM
        if not small and size <= _LARGE_MM:
            return cls()
        factor = _HUMAN_MM / size
        return cls(
            factor,
            f"{larger.name} is {size:.3g} mm large, far from a human body: both images were registered as if they were "
            f"{factor:.3g} times as large. Check the unit of their spacing, if they show a human.",
        )

    def volume(self, image: V) -> V:
        """The image at its magnified place."""
        if image is None or self.factor == 1.0:
            return image
        check_shape(image)
        return replace(image, grid=image.grid.scaled(self.factor))

    def options(self, options: Options) -> Options:
        """Masks, labels, points and the initial transform at their magnified places."""
        if self.factor == 1.0:
            return options
        initial = options.initial_transform
        return replace(
            options,
            initial_transform=None if initial is None else initial.scaled(self.factor),
            fixed_mask=self.volume(options.fixed_mask),
            moving_mask=self.volume(options.moving_mask),
            protect_mask=self.volume(options.protect_mask),
            fixed_labels=self.volume(options.fixed_labels),
            moving_labels=self.volume(options.moving_labels),
            fixed_points=self._points(options.fixed_points),
            moving_points=self._points(options.moving_points),
        )

    def _points(self, points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else np.asarray(points, dtype=float) * self.factor

    def true_images(self, images: Prepared, fixed: Volume, moving: Volume) -> Prepared:
        """Images and body at their true size."""
        if self.factor == 1.0:
            return images
        body = replace(images.fixed_body, grid=images.fixed_body.grid.scaled(1.0 / self.factor))
        return replace(images, fixed=fixed, moving=moving, fixed_body=body)

    def true_maps(self, maps: Maps, start: Transform) -> Maps:
        """The maps between points at their true places."""
        return maps if self.factor == 1.0 else replace(_scaled(maps, 1.0 / self.factor), start=start)

    def large_maps(self, maps: Maps) -> Maps:
        """Maps between points at their true places -> between the magnified ones."""
        return maps if self.factor == 1.0 else _scaled(maps, self.factor)


def _scaled(maps: Maps, factor: float) -> Maps:
    jacobian = maps.jacobian
    if jacobian is not None:
        jacobian = replace(jacobian, grid=jacobian.grid.scaled(factor))
    start, forward, backward = (part.scaled(factor) for part in (maps.start, maps.forward, maps.backward))
    return Maps(start, forward, backward, jacobian, maps.protected)
