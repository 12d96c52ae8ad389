"""A lesion that has fallen apart: several separate parts where one was, each a blob of the lesion's kind of contrast.

What a lesion covered shows again when it falls apart: muscle, vessels, bowel, often as bright as the lesion was. They
reach in from outside or run through as bands, so parts are not told by brightness alone: a part is curved to every
side, the weakest of the three curvatures (the Hessian's eigenvalues, at the scale of the part) counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ..space.volume import Volume
from .contour import LEAST_CONTRAST, Levels, signed_distance, smoothed

# Smaller lesions show no parts that a CT resolves.
_SMALLEST_ML = 1.0
# Standard deviations, mm, of the scales that parts are looked for at; the largest as share of the lesion's radius.
_FINEST_MM, _COARSEST_MM, _COARSEST_SHARE, _SCALES = 1.8, 4.2, 0.3, 4
# Weakest curvature times squared scale of a Gaussian of height 1 at the scale that answers most: (2/3) / (5/3)^2.5.
_ANSWER = 0.186
# A ball answers most at about this share of its radius.
_SHARE_OF_RADIUS = 0.52
# A part's height: in contrasts of the lesion, in standard deviations of the noise, in heights of the strongest part; no
# less than LEAST_CONTRAST.
_LEAST_SHARE, _LARGEST_SHARE, _LEAST_NOISE, _LEAST_OF_STRONGEST = 0.2, 3.0, 1.5, 0.3
# Its middle lies inside the old border, mm.
_INSIDE_MM = 0.5
# Mean likeness of the old core from which on the lesion is whole, and the share of it that parts fill at most.
_WHOLE, _MOST_SHARE = 0.65, 0.7
_CORE_MM = 2.0


@dataclass(frozen=True)
class _Blob:
    """Height (image's units), scale (mm) and voxel (z, y, x) of a part's middle."""

    height: float
    scale: float
    voxel: np.ndarray


def separate_parts(image: Volume, carried: Volume, before: Levels) -> list[torch.Tensor]:
    """The parts of a lesion that has split, the largest first, (D, H, W) bool on the image's grid; else none.

    Args:
        image: the follow-up around the lesion, cubic voxels. carried: the baseline's contour there, same grid.
        before: levels at the baseline.
    """
    spacing = image.grid.spacing[0]
    shape = carried.tensor[0, 0] > 0.5
    lesion = float(shape.sum())
    if lesion * spacing**3 < 1000 * _SMALLEST_ML or abs(before.contrast) < LEAST_CONTRAST:
        return []
    distance = signed_distance(shape, spacing)
    values = image.tensor[0, 0].float()
    core = distance <= max(-_CORE_MM, 0.5 * float(distance.min()))
    if float(before.likeness(smoothed(values, spacing, 1.5))[core].mean()) > _WHOLE:
        return []
    bright = values if before.contrast >= 0 else -values
    noise = 1.48 * float((bright - smoothed(bright, spacing, 1.5 * spacing)).abs().median())
    blobs = _blobs(bright, distance, spacing)
    least = max(_LEAST_SHARE * abs(before.contrast), _LEAST_NOISE * noise, LEAST_CONTRAST)
    blobs = [blob for blob in blobs if least <= blob.height <= _LARGEST_SHARE * abs(before.contrast)]
    blobs = [blob for blob in blobs if blob.height >= _LEAST_OF_STRONGEST * blobs[0].height]
    if len(blobs) < 2:
        return []
    parts = sorted(_drawn(bright, blobs, spacing), key=lambda part: -int(part.sum()))
    filled = sum(int(part.sum()) for part in parts)
    return parts if len(parts) > 1 and filled <= _MOST_SHARE * lesion else []


def _blobs(bright: torch.Tensor, distance: torch.Tensor, spacing: float) -> list[_Blob]:
    """Bright blobs inside the border, the strongest first; of those that overlap the strongest alone."""
    coarsest = max(_COARSEST_MM, _COARSEST_SHARE * -float(distance.min()))
    scales = np.geomspace(_FINEST_MM, coarsest, _SCALES)
    where = (distance <= 2 * spacing).numpy()
    answers = np.stack([_weakest_curvature(bright, where, scale, spacing) for scale in scales])
    padded = torch.nn.functional.pad(torch.from_numpy(answers)[None], (1,) * 6, value=-np.inf)
    highest = torch.nn.functional.max_pool3d(padded, 3, 1)[0].numpy()
    neighbors = np.pad(highest, ((1, 1), (0, 0), (0, 0), (0, 0)), constant_values=-np.inf)
    peaks = (answers >= np.maximum(np.maximum(neighbors[:-2], neighbors[2:]), highest)) & (answers > 0)
    peaks &= (distance <= -_INSIDE_MM).numpy()
    found = [
        _Blob(float(answers[tuple(place)]), float(scales[place[0]]), place[1:].astype(float))
        for place in np.argwhere(peaks)
    ]
    kept: list[_Blob] = []
    for blob in sorted(found, key=lambda blob: -blob.height):
        if all(np.linalg.norm(blob.voxel - other.voxel) * spacing > 1.2 * (blob.scale + other.scale) for other in kept):
            kept.append(blob)
    return kept


def _weakest_curvature(bright: torch.Tensor, where: np.ndarray, scale: float, spacing: float) -> np.ndarray:
    """(D, H, W) float32: height of the Gaussian blob whose weakest curvature is the one found; -inf elsewhere."""
    smooth = smoothed(bright, spacing, scale).numpy()
    slopes = np.gradient(smooth, spacing)
    hessian = np.empty((int(where.sum()), 3, 3), np.float32)
    for first in range(3):
        for second in range(first, 3):
            if first == second:
                curvature = (np.roll(smooth, 1, first) + np.roll(smooth, -1, first) - 2 * smooth) / spacing**2
            else:
                curvature = np.gradient(slopes[first], spacing, axis=second)
            hessian[:, first, second] = hessian[:, second, first] = curvature[where]
    answer = np.full(where.shape, -np.inf, np.float32)
    answer[where] = -np.linalg.eigvalsh(hessian)[:, 2] * scale**2 / _ANSWER
    return answer


def _drawn(bright: torch.Tensor, blobs: list[_Blob], spacing: float) -> list[torch.Tensor]:
    """Each blob down to half of its height over what surrounds it, (D, H, W) bool; those without a gap are one."""
    level = smoothed(bright, spacing, 0.9)
    voxels = torch.stack(torch.meshgrid(*[torch.arange(n) for n in bright.shape], indexing="ij"), -1)
    away = torch.stack([(voxels - torch.as_tensor(blob.voxel)).norm(dim=-1) * spacing for blob in blobs])
    nearest = away.argmin(0)
    whole = torch.zeros(bright.shape, dtype=torch.bool)
    for number, blob in enumerate(blobs):
        reach = 1.3 * blob.scale / _SHARE_OF_RADIUS
        shell = (away[number] > reach) & (away[number] <= reach + 4.0) & (nearest == number)
        middle = level[tuple(blob.voxel.astype(int))]
        outside = level[shell].quantile(0.25) if bool(shell.any()) else middle - blob.height
        whole |= (level > (middle + outside) / 2) & (away[number] <= reach) & (nearest == number)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(whole.numpy().astype(np.uint8))))
    middles = {int(labels[tuple(blob.voxel.astype(int))]) for blob in blobs}
    return [torch.from_numpy(labels == label) for label in sorted(middles - {0})]
