"""A lesion that has fallen apart: several separate parts where one was, each with the lesion's contrast."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch

from ..space.volume import Volume
from .contour import LEAST_CONTRAST, Levels

# Parts lie within this of the carried contour, which may be off by as much; mainly, for they may have grown.
_REACH_MM = 2.0
_MAINLY = 0.7
# A part is no speck, and no ripple of the noise: its share of the lesion's volume, and of the largest part's.
_LEAST_SHARE = 0.015
_LEAST_OF_LARGEST = 0.25
_LEAST_ML = 0.04
# Smaller lesions show no parts that a CT resolves.
_SMALLEST_ML = 1.0
# Parts that fill the place of the lesion are texture of a whole one.
_MOST_SHARE = 0.7
# Mean likeness that a part shows.
_CLEAR = 0.75


def separate_parts(image: Volume, carried: Volume, before: Levels, outside: float) -> list[torch.Tensor]:
    """The parts of a lesion that has split, the largest first, (D, H, W) bool on the image's grid; else none.

    Args:
        image: the follow-up around the lesion, cubic voxels. carried: the baseline's contour there, same grid.
        before: levels at the baseline. outside: level of the surroundings now.
    """
    spacing = image.grid.spacing[0]
    shape = carried.tensor[0, 0] > 0.5
    lesion = float(shape.sum())
    if lesion * spacing**3 < 1000 * _SMALLEST_ML:
        return []
    region = _within(shape, _REACH_MM / spacing)
    level = (1.0 if before.contrast >= 0 else -1.0) * (_smooth(image.tensor[0, 0].float(), 0.9 / spacing) - outside)
    contrast = max(abs(before.contrast), LEAST_CONTRAST)
    threshold, inside = 0.5 * contrast, contrast
    for _ in range(3):
        bright = (level > threshold) & (level < 3 * contrast)
        if int((bright & region).sum()) < 4:
            return []
        inside = float(level[bright & region].median())
        threshold = max(0.5 * inside, 0.4 * contrast)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(bright.to(torch.uint8).numpy())))
    whole = np.bincount(labels.ravel())[1:]
    within = np.bincount(labels[region.numpy()], minlength=len(whole) + 1)[1:]
    # What reaches far beyond the place is no part of the lesion, or the lesion has grown into one.
    if (within[within < _MAINLY * whole] > 0.1 * lesion).any():
        return []
    sizes = np.where(within >= _MAINLY * whole, whole, 0)
    least = max(_LEAST_SHARE * lesion, _LEAST_OF_LARGEST * sizes.max(initial=0), 1000 * _LEAST_ML / spacing**3)
    order = [number for number in np.argsort(-sizes, kind="stable") if sizes[number] >= least]
    parts = [torch.from_numpy(labels == number + 1) for number in order]
    clear = [part for part in parts if float((level[part] / inside).clamp(max=1.2).mean()) >= _CLEAR]
    if len(clear) < 2 or sum(int(part.sum()) for part in clear) > _MOST_SHARE * lesion:
        return []
    return clear


def _within(mask: torch.Tensor, voxels: float) -> torch.Tensor:
    distance = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(mask.to(torch.uint8).numpy()), squaredDistance=False, useImageSpacing=False
    )
    return torch.from_numpy(sitk.GetArrayFromImage(distance)) <= voxels


def _smooth(values: torch.Tensor, sigma_voxels: float) -> torch.Tensor:
    image = sitk.GetImageFromArray(values.numpy())
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, [sigma_voxels**2] * 3)))
