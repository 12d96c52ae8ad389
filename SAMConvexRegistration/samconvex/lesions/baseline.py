"""A lesion as the baseline shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..space.grid import Grid
from ..space.volume import Volume
from .contour import Fit, alike_beside, fit_contour, neighborhood, on_neighborhood, scaled, suggest_contour
from .lesion import Lesion
from .measurement import Measurement, size_in, trimmed
from .patches import crop, patch
from .precision import ExpectedError, expected_error

_POINT_RADIUS_MM = 5.0
# A follow-up's neighborhood reaches this much further than the baseline's, for what has grown.
_AROUND_MM = 24.0
_POINT_SIZES = tuple(float(s) for s in np.geomspace(0.5, 3.0, 9))
_DRAWN_SIZES = tuple(float(s) for s in np.geomspace(0.6, 1.2, 7))


@dataclass(frozen=True)
class Baseline:
    """A lesion with what the baseline image says about it.

    Attributes:
        contour: soft, in [0, 1]. fit: how it stands out.
        size, error: of the contour, and its expected error. around: the baseline image around the lesion.
        is_point: no size came with the lesion.
    """

    lesion: Lesion
    contour: Volume
    fit: Fit
    size: Measurement
    error: ExpectedError
    around: Volume | None = None
    is_point: bool = False

    @property
    def measurement(self) -> Measurement | None:
        """The size; None of a lesion that came as a point, whose contour is a guess."""
        return None if self.is_point else self.size


def describe(baseline: Volume, lesion: Lesion) -> Baseline:
    """The lesion's contour in the baseline: as drawn, or found within its box, at its diameters or around its point."""
    if lesion.mask is not None:
        contour = trimmed(lesion.mask)
        assert contour is not None
        contour = contour.with_tensor((contour.tensor > 0.5).float())
        grid = neighborhood(contour, 8.0)
        soft = on_neighborhood(contour, grid, 0.0)
        return _described(baseline, lesion, soft, contour)
    start = _ellipsoid(lesion)
    grid = neighborhood(start, 16.0)
    image = patch(baseline, grid)
    soft = on_neighborhood(start, grid, 0.0)
    is_point = lesion.box is None and lesion.diameters is None
    if is_point:
        # The size that stands out most from what is around it.
        sizes = [
            fit_contour(image, soft.with_tensor(ball[None, None]), scales=(1.0,), shift_mm=3.0)
            for ball in (scaled(soft, lesion.point, size) for size in _POINT_SIZES)
        ]
        found = max(sizes, key=lambda fit: min(abs(fit.levels.contrast), 200.0) * fit.match)
    else:
        reach = 4.0 if lesion.box is None else 0.25 * float((lesion.box[1] - lesion.box[0]).min())
        found = fit_contour(image, soft, scales=_DRAWN_SIZES, shift_mm=reach)
    contour = Volume(suggest_contour(image, found).float()[None, None], grid)
    return _described(baseline, lesion, contour, contour, is_point)


def _described(baseline: Volume, lesion: Lesion, contour: Volume, drawn: Volume, is_point: bool = False) -> Baseline:
    """``contour`` on a neighborhood's grid; ``drawn``: the contour to measure."""
    image = patch(baseline, contour.grid)
    fit = fit_contour(image, contour, scales=(1.0,), shift_mm=0.0)
    alike = alike_beside(image, contour, fit.levels)
    fit = fit_contour(image, contour, fit.levels, scales=(1.0,), shift_mm=0.0, alike=alike)
    size = size_in(drawn, baseline.grid)
    around = crop(baseline, contour.grid.center, float(contour.grid.extent.max()) / 2 + _AROUND_MM)
    return Baseline(lesion, contour, fit, size, expected_error(size, baseline.grid), around, is_point)


def _ellipsoid(lesion: Lesion) -> Volume:
    """A first contour where none was drawn: inscribed in the box, a ball over the longest diameter or at the point."""
    if lesion.box is not None:
        radii = (lesion.box[1] - lesion.box[0]) / 2
    elif lesion.diameters is not None:
        longest = np.linalg.norm(lesion.diameters[:, 1] - lesion.diameters[:, 0], axis=1).max()
        radii = np.full(3, longest / 2)
    else:
        radii = np.full(3, _POINT_RADIUS_MM)
    ends = np.stack([lesion.point - radii, lesion.point + radii])
    grid = Grid.covering(ends, float(np.clip(radii.min() / 5, 0.7, 2.0)), margin_mm=2.0)
    points = grid.voxel_centers(reference=lesion.point)
    inside = (points / torch.as_tensor(radii, dtype=torch.float32)).square().sum(-1) <= 1
    return Volume(inside.float()[None, None], grid)
