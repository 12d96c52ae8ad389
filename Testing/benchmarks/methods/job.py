"""The files that every method gets for a pair: the same two images on one grid, after the same start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from samconvex import Grid, Volume, register, write_volume
from samconvex.anatomy.organs import organ_probabilities
from samconvex.settings.presets import get_settings
from samconvex.settings.registration import Settings
from samconvex.space.sampling import sample
from samconvex.space.transforms import Transform
from samconvex.space.volume import FeatureMap, resample

from ..data.pairs import Case

# Head-neck voxels are about 3.9 x 3.9 x 2.5 mm. The peers' defaults count in voxels and do better on cubes: on these
# pairs ConvexAdam and greedy gain 1 to 3 points of Dice at 2.5 mm over the native grid.
COMMON_SPACING_MM = 2.5
# Organ probabilities of both images, for methods that take features of others.
ORGANS_FILE = "organs.npz"
# An organ counts where some place of either image has this probability.
SHOWN = 0.5


def common_grid(fixed: Volume) -> Grid:
    """Identity-direction grid over the fixed image: its own voxels where they are nearly cubes, else 2.5 mm."""
    image = sitk.DICOMOrient(fixed.to_sitk(), "LPS")
    grid = Grid.from_sitk(image)
    if max(grid.spacing) < 1.2 * min(grid.spacing) and grid.is_axis_aligned:
        return grid
    return fixed.grid.canonical(COMMON_SPACING_MM)


def common_start(case: Case, preset: str | Settings, weights: str | None = None) -> Transform:
    """What the preset does before it deforms, which everybody starts from: between CTs our SAM-affine."""
    settings = get_settings(preset).linear_part
    masks = {} if case.masks is None else {"fixed_mask": case.masks[0], "moving_mask": case.masks[1]}
    found = register(case.fixed, case.moving, preset=settings, weights=weights, device="cpu", **masks)
    return found.fixed_to_moving


def prepare(case: Case, start: Transform, folder: Path, origin: str = "given") -> None:
    """Write the job: fixed, moving (through the start), native images, masks, ``start.tfm`` and where it comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "origin.txt").unlink(missing_ok=True)
    grid = common_grid(case.fixed)
    write_volume(_plain(resample(case.fixed, grid)), folder / "fixed.nii.gz")
    write_volume(_plain(start.warp_volume(_plain(case.moving), grid)), folder / "moving.nii.gz")
    write_volume(_plain(case.fixed), folder / "fixed_native.nii.gz")
    write_volume(_plain(case.moving), folder / "moving_native.nii.gz")
    if case.masks is not None:
        write_volume(resample(case.masks[0], grid, mode="nearest"), folder / "fixed_mask.nii.gz")
        write_volume(start.warp_nearest(case.masks[1], grid), folder / "moving_mask.nii.gz")
        write_volume(case.masks[0], folder / "fixed_mask_native.nii.gz")
        write_volume(case.masks[1], folder / "moving_mask_native.nii.gz")
    start.save(folder / "start.tfm")
    (folder / "origin.txt").write_text(origin)


def prepare_organs(case: Case, start: Transform, folder: Path) -> None:
    """Write what our organ network sees, as our solver gets it, on the job's grid: (organs, D, H, W) bytes, 255 for 1.

    Organs that neither image shows are left out.
    """
    grid = common_grid(case.fixed)
    points = grid.voxel_centers(reference=grid.center)
    ways = ((case.fixed, (points, grid.center)), (case.moving, start.map_relative(points, grid.center)))
    found = [_read_at(organ_probabilities(volume), *places) for volume, places in ways]
    shown = torch.maximum(*(part.flatten(1).amax(1) for part in found)) >= SHOWN
    bytes_ = [(255 * part[shown]).round().to(torch.uint8).numpy() for part in found]
    np.savez_compressed(folder / ORGANS_FILE, fixed=bytes_[0], moving=bytes_[1])


def _read_at(organs: FeatureMap, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
    return sample(organs.tensor.float(), organs.grid, points, reference=reference, fill=0.0)[0]


def is_prepared(folder: Path, origin: str = "given") -> bool:
    """Whole, and from a start of that ``origin``, which is written last."""
    file = folder / "origin.txt"
    return file.is_file() and file.read_text(encoding="utf-8") == origin


def _plain(volume: Volume) -> Volume:
    """Float32: interpolated values are not rounded for anybody."""
    return Volume(volume.as_float(), volume.grid, sitk.sitkFloat32, volume.source)
