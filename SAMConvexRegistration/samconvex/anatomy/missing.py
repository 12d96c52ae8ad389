"""What an image was not given: parts of the body blanked out by a mask, a defacing or an earlier resampling.

The last tissue before such a part looks like skin, and a registration would stretch it over all that the other image
shows. A part is missing where, after the initial alignment, the other body is thick and this image is blank: neither
skin nor different patients explain that. Where a CT was filled up with a value that is no measurement
(:mod:`samconvex.space.filling`), that value says so by itself.
"""

from __future__ import annotations

import SimpleITK as sitk
import torch

from ..space.filling import not_measured
from ..space.filters import dilated
from ..space.transforms import Transform
from ..space.volume import Volume, resample

# Bodies of different patients that differ by less, after the alignment, are just different.
_THICK_MM = 24.0
# A scanner's image shows a couch, clothes or noise around the body.
_BLANK_SHARE = 0.98


def missing_part(
    image: Volume, body: Volume, other_body: Volume, to_image: Transform, scanned: Volume | None = None
) -> Volume | None:
    """Where ``image`` was blanked or never scanned but the other image shows a thick part of the body.

    Args:
        image: the image that may lack something.
        body: its body, nonzero.
        other_body: body of the other image, nonzero.
        to_image: maps points of the other image to points of ``image``.
        scanned: the image as it was read, where ``image`` has air in place of what was filled up.

    Returns:
        uint8 on the grid of ``other_body``; None if nothing is missing.
    """
    blank = _blank(image, body)
    lacking = None if scanned is None else not_measured(scanned)
    if blank is None and lacking is None:
        return None
    grid = other_body.grid
    nothing = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    if blank is not None:
        nothing |= to_image.warp_volume(blank, grid, background=1.0).tensor > 0.5
    if scanned is not None and lacking is not None:
        nothing |= to_image.warp_nearest(scanned.with_tensor(lacking.to(torch.uint8)), grid).tensor > 0
    shown = to_image.warp_nearest(body, grid).tensor > 0
    absent = ((other_body.tensor > 0) & ~shown & nothing)[0, 0].to(torch.uint8).numpy()
    radius = [max(1, round(_THICK_MM / 2 / spacing)) for spacing in grid.spacing]
    opened = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(absent), radius, sitk.sitkBall)
    found = torch.from_numpy(sitk.GetArrayFromImage(opened))[None, None]
    return Volume(found, grid, sitk.sitkUInt8, image.source) if bool(found.any()) else None


def _blank(image: Volume, body: Volume) -> Volume | None:
    """1.0 where the image has the one value that lies around its body; None where many values do."""
    around = resample(image.with_tensor(image.as_float()), body.grid, mode="nearest").tensor[
        ~dilated(body.tensor > 0, 2) & (resample(_ones(image), body.grid, mode="nearest", fill=0.0).tensor > 0)
    ]
    if not len(around):
        return None
    value = around.median()
    # Interpolation leaves traces of rounding.
    tolerance = 1e-4 * float(image.tensor.max() - image.tensor.min())
    if float(((around - value).abs() <= tolerance).float().mean()) < _BLANK_SHARE:
        return None
    return image.with_tensor(((image.as_float() - value).abs() <= tolerance).float())


def _ones(image: Volume) -> Volume:
    return image.with_tensor(torch.ones_like(image.tensor, dtype=torch.float32))
