"""Where a follow-up shows what the registered baseline has nothing like, voxel by voxel.

A registration leaves errors of millimeters, so each place is compared with every place of the baseline within
``REACH_MM``: what remains is the smallest difference among them, averaged over the size of a small lesion. Slow
differences of brightness (contrast phase, calibration) are taken away first. Divided by how much else differs nearby,
the rest tells how much a place stands out as new.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from ..anatomy.body import body_mask
from ..space.filters import dilated, smooth
from ..space.grid import Grid
from ..space.transforms import Transform
from ..space.volume import Volume, resample

SPACING_MM = 2.0
# What a registration of two dates leaves: a larger reach would explain small lesions by vessels beside them.
REACH_MM = 2.9
# Skin, and what a mask may have wrong there.
RIM_MM = 8.0
# Hounsfield units between which lesions of soft tissue and lung differ; bone and metal would outshine them.
WINDOW_HU = (-1000.0, 250.0)
_LUNG_HU, _BONE_HU, _GAS_HU = -500.0, 220.0, -250.0
# Airways and bowel gas are smaller parts.
_LEAST_LUNG_ML, _SURELY_LUNG_ML = 100.0, 600.0
_BRIGHTNESS_MM, _NOISE_MM = 24.0, 30.0
_LARGEST_SHIFT_HU, _LEAST_NOISE_HU = 120.0, 8.0
_SCALES = 3
# Of the baseline's own variation nearby, what a registration leaves: vessels and edges.
_STRUCTURE = 0.2


@dataclass(frozen=True)
class Novelty:
    """Tensors (1, 1, D, H, W) on one grid of about 2 mm over the follow-up's body.

    Attributes:
        grid: identity direction, LPS mm.
        residual: HU (float) by which the follow-up differs from whatever the baseline shows within reach; 0 where
            nothing is compared.
        contrast_to_noise: its size, in units of what else differs nearby.
        compared: bool, body that both images show, without skin, bone and surroundings of gas outside the lungs.
        lung: bool.
    """

    grid: Grid
    residual: torch.Tensor
    contrast_to_noise: torch.Tensor
    compared: torch.Tensor
    lung: torch.Tensor


def novelty(follow_up: Volume, baseline: Volume, follow_up_to_baseline: Transform) -> Novelty:
    """Compare a follow-up with the registered baseline.

    Args:
        follow_up, baseline: CT in Hounsfield units.
        follow_up_to_baseline: maps follow-up points to baseline points, LPS mm.
    """
    mask = body_mask(follow_up)
    grid = Grid.covering(mask.box(), SPACING_MM)
    now = resample(follow_up, grid).tensor.clamp(*WINDOW_HU)
    before = follow_up_to_baseline.warp_volume(baseline, like=grid).tensor.float().clamp(*WINDOW_HU)
    body = resample(mask, grid, mode="nearest").tensor > 0
    seen = follow_up_to_baseline.validity(baseline, grid).tensor > 0
    lung = lungs(now, body, grid)
    compared = _comparable(now, body, lung) & _eroded(seen, 2)
    # Mean brightness of the surroundings, outliers (lesions, organs that moved) held down.
    shift = (now - before).clamp(-_LARGEST_SHIFT_HU, _LARGEST_SHIFT_HU)
    before = before + _local_mean(shift, compared, _BRIGHTNESS_MM)
    residual = _least_difference(now, before) * compared
    # Small lesions stand out at the first scale; at wider ones edges that moved cancel out.
    structure = _STRUCTURE * _local_deviation(before)
    ratio = torch.zeros_like(residual)
    for scale in range(_SCALES):
        mean = residual if scale == 0 else smooth(residual, scale) * compared
        expected = _noise(mean, compared, lung) + (_LEAST_NOISE_HU + structure) / (scale + 1)
        ratio = torch.maximum(ratio, mean.abs() / expected)
    return Novelty(grid, residual, ratio * compared, compared, lung)


def _noise(residual: torch.Tensor, compared: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
    """What differs nearby in the lung and elsewhere, HU, lesions themselves held down."""
    noise = torch.zeros_like(residual)
    for part in (compared & lung, compared & ~lung):
        if bool(part.any()):
            cap = 3.0 * float(residual[part].abs().mean()) + 1.0
            noise = torch.where(part, _local_mean(residual.abs().clamp(max=cap), part, _NOISE_MM), noise)
    return noise


def _local_deviation(values: torch.Tensor) -> torch.Tensor:
    """Standard deviation over 5 voxels, HU."""
    return (smooth(values.square(), 1, 2) - smooth(values, 1, 2).square()).clamp(min=0).sqrt()


def lungs(values: torch.Tensor, body: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Bool: large connected parts of the body's inside that are nearly air, vessels and nodules in them included.

    Args:
        values: HU (1, 1, D, H, W). body: bool, the same shape.
    """
    air = ((values < _LUNG_HU) & body)[0, 0].numpy().astype(np.uint8)
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(air)))
    sizes = np.bincount(labels.ravel()) * float(np.prod(grid.spacing)) / 1000.0
    sizes[0] = 0.0
    medians = np.zeros(len(sizes))
    for label in np.nonzero(sizes >= _LEAST_LUNG_ML)[0]:
        medians[label] = float(np.median(values[0, 0].numpy()[labels == label]))
    # Gas in bowel or stomach is as empty as air, and smaller than emptied lungs.
    large = (sizes >= _SURELY_LUNG_ML) | ((sizes >= _LEAST_LUNG_ML) & (medians > -960.0))
    closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(large[labels].astype(np.uint8)), (4, 4, 4))
    return torch.from_numpy(sitk.GetArrayFromImage(closed) > 0)[None, None]


def _comparable(values: torch.Tensor, body: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
    """Where lesions are looked for: inside the body, no bone, no bowel whose gas and content move."""
    rim = int(round(RIM_MM / SPACING_MM))
    bone = smooth(values, 1) > _BONE_HU
    gas = dilated((values < _GAS_HU) & ~dilated(lung, 2), 3)
    return _eroded(body, rim) & ~dilated(bone, 1) & (~gas | lung)


def _eroded(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """What lies beyond the image's border takes away as well: nobody sees what is there."""
    return ~dilated(~F.pad(mask, (1,) * 6), reach)[..., 1:-1, 1:-1, 1:-1]


def _local_mean(values: torch.Tensor, mask: torch.Tensor, width_mm: float) -> torch.Tensor:
    """Mean over a box of ``width_mm`` to either side, of what is in the mask."""
    radius = int(round(width_mm / SPACING_MM))
    weight = smooth(mask.float(), 1, radius)
    return smooth(values * mask, 1, radius) / weight.clamp(min=1e-4)


def _least_difference(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Mean difference over 3 voxels, of all shifts within reach the one that is smallest in size."""
    reach = int(round(REACH_MM / SPACING_MM))
    least: torch.Tensor | None = None
    for shift in product(range(-reach, reach + 1), repeat=3):
        if np.linalg.norm(shift) * SPACING_MM > REACH_MM + 1e-6:
            continue
        difference = smooth(now - torch.roll(before, shift, (2, 3, 4)), 1)
        least = difference if least is None else torch.where(difference.abs() < least.abs(), difference, least)
    assert least is not None
    return least
