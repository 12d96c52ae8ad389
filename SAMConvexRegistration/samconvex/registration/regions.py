"""What of the images is to be matched: bodies, masks, boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..anatomy.missing import missing_part
from ..errors import InputError
from ..space.filling import filled_corners
from ..space.filters import dilated
from ..space.transforms import Transform
from ..space.volume import Volume, resample
from .pair import Pair

# Around the body: the skin's neighborhood tells where the body ends.
_MARGIN_MM = 8.0


def mask_or_body(volume: Volume, mask: Volume | None) -> Volume:
    """What to register: the user's mask, or the body, on a 4 mm identity-direction grid."""
    if mask is None:
        return body_mask(volume)
    coarse = resample(mask.with_tensor((mask.tensor != 0).float()), mask.grid.canonical(4.0), fill=0.0)
    found = (coarse.tensor > 0.25).to(torch.uint8)
    if not bool(found.any()):
        raise InputError(f"{mask.name} marks nothing; give a mask with voxels above 0.")
    marked = coarse.with_tensor(found)
    if not bool(volume.grid.contains(marked.points()).any()):
        raise InputError(f"{mask.name} lies outside {volume.name}; give a mask made on that image.")
    return marked


def _dilated(mask: Volume) -> Volume:
    reach = int(_MARGIN_MM / mask.grid.spacing[0])
    return mask.with_tensor(dilated(mask.tensor > 0, reach).float())


def body_of_moving(moving: Volume, mask: Volume | None, *, needed: bool) -> Volume | None:
    """As :func:`mask_or_body`; None where no body is found and none is ``needed``."""
    try:
        return mask_or_body(moving, mask)
    except InputError:
        if needed or mask is not None:
            raise
    return None


@dataclass(frozen=True)
class Region:
    """What of an image counts.

    Attributes:
        matched: what is to be matched; None where no body was found.
        data: where the image has data; None for everywhere.
    """

    matched: Volume | None = None
    data: Volume | None = None


@dataclass(frozen=True)
class Regions:
    """The regions of both images, and the moving body where one was found."""

    fixed: Region
    moving: Region
    moving_body: Volume | None


def regions_of(
    pair: Pair,
    fixed_body: Volume,
    initial: Transform,
    symmetric: bool,
    warnings: list[str],
    scanned: tuple[Volume | None, Volume | None] = (None, None),
) -> Regions:
    """What of both images is to be matched; parts that are blank in one of them are said in ``warnings``.

    A mask says what is matched and where there is data. Without one, what was blanked out of an image is no data, and
    its edge is not matched; ``scanned`` are the images as they were read, where that still shows.
    """
    moving_body = body_of_moving(pair.moving, pair.moving_mask, needed=symmetric)
    fixed = _region(pair, fixed_body, moving_body, initial, warnings, scanned[0])
    moving = _region(pair.exchanged(), moving_body, fixed_body, initial.inverse(), warnings, scanned[1])
    return Regions(fixed, moving, moving_body)


def _region(
    pair: Pair,
    body: Volume | None,
    other: Volume | None,
    to_other: Transform,
    warnings: list[str],
    scanned: Volume | None,
) -> Region:
    """The region of the pair's first image; ``to_other`` maps its points to the second image."""
    if body is None:
        return Region()
    image, matched = pair.fixed, _dilated(body)
    if pair.fixed_mask is not None:
        return Region(matched, matched)
    missing = None if other is None else missing_part(image, body, other, to_other.inverse(), scanned)
    if missing is None:
        return Region(matched)
    volume = float(missing.tensor.sum()) * float(np.prod(missing.grid.spacing)) / 1e3
    warnings.append(
        f"{image.name} is blank over {volume:.0f} ml of what {pair.moving.name} shows of the body; nothing "
        "was matched there."
    )
    edge = dilated(to_other.warp_nearest(missing, matched.grid).tensor > 0, 1)
    blank = to_other.warp_nearest(missing, image.grid.canonical(body.grid.spacing))
    return Region(matched.with_tensor(matched.tensor * ~edge), blank.with_tensor((blank.tensor == 0).float()))


def filling_note(volume: Volume) -> str | None:
    """A sentence where corners of a CT are filled up with the value of tissue; None where they are not."""
    filled = filled_corners(volume)
    if filled is None:
        return None
    share = 100 * float(filled[1].float().mean())
    return (
        f"{volume.name} is filled up with {filled[0]:g} HU from its corners inwards, over {share:.0f} % of its voxels "
        "(as programs do that turn an image); that was taken as no data."
    )


def box_of(mask: Volume) -> np.ndarray:
    """(2, 3) opposite corners of the mask's bounding box with margin, LPS mm."""
    low, high = mask.box()
    return np.stack([low - _MARGIN_MM, high + _MARGIN_MM])


def check_overlap(fixed: Volume, moving: Volume, initial: Transform, body: Volume) -> None:
    points = body.points()
    inside = fixed.grid.contains(points)
    share = float(moving.grid.contains(initial.map_points(points[inside])).mean()) if inside.any() else 0.0
    if share < 0.01:
        raise InputError(
            f"{moving.name} does not overlap {fixed.name} after alignment; check that both show the same body part, or "
            "give an initial transform or --affine moments."
        )
