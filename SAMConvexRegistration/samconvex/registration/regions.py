"""What of the images is to be matched: bodies, masks, boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..anatomy.missing import missing_part
from ..errors import InputError
from ..space.filling import filled_corners
from ..space.filters import dilated
from ..space.transforms import Transform
from ..space.volume import Volume, resample

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
    if not bool(volume.grid.contains(coarse.grid.voxels_to_points(found[0, 0].nonzero().flip(1).numpy())).any()):
        raise InputError(f"{mask.name} lies outside {volume.name}; give a mask made on that image.")
    return coarse.with_tensor(found)


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


def matched_regions(
    images: Sequence[Volume],
    bodies: Sequence[Volume | None],
    masks: Sequence[Volume | None],
    initial: Transform,
    warnings: list[str],
    scanned: Sequence[Volume | None] = (None, None),
) -> list[tuple[Volume | None, Volume | None]]:
    """For each image what of it is to be matched (None: no body was found), and where it has data (None: everywhere).

    A mask says both. Without one, what was blanked out of an image is no data, and its edge is not matched; ``scanned``
    are the images as they were read, where that still shows.
    """
    regions: list[tuple[Volume | None, Volume | None]] = []
    ways = (initial.inverse(), initial)  # from the other image's points to this one's
    for number, (image, body, mask) in enumerate(zip(images, bodies, masks, strict=True)):
        if body is None:
            regions.append((None, None))
            continue
        matched = _dilated(body)
        if mask is not None:
            regions.append((matched, matched))
            continue
        other, to_image = bodies[1 - number], ways[number]
        missing = None if other is None else missing_part(image, body, other, to_image, scanned[number])
        if missing is None:
            regions.append((matched, None))
            continue
        volume = float(missing.tensor.sum()) * float(np.prod(missing.grid.spacing)) / 1e3
        warnings.append(
            f"{image.name} is blank over {volume:.0f} ml of what {images[1 - number].name} shows of the body; nothing "
            "was matched there."
        )
        back = ways[1 - number]
        edge = dilated(back.warp_labels(missing, matched.grid).tensor > 0, 1)
        blank = back.warp_labels(missing, image.grid.canonical(body.grid.spacing))
        regions.append((matched.with_tensor(matched.tensor * ~edge), blank.with_tensor((blank.tensor == 0).float())))
    return regions


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
    voxels = mask.tensor[0, 0].nonzero().flip(1).cpu().numpy()
    ends = mask.grid.voxels_to_points(np.stack([voxels.min(0) - 0.5, voxels.max(0) + 0.5]))
    return np.stack([ends.min(0) - _MARGIN_MM, ends.max(0) + _MARGIN_MM])


def check_overlap(fixed: Volume, moving: Volume, initial: Transform, body: Volume) -> None:
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    inside = fixed.grid.contains(points)
    share = float(moving.grid.contains(initial.map_points(points[inside])).mean()) if inside.any() else 0.0
    if share < 0.01:
        raise InputError(
            f"{moving.name} does not overlap {fixed.name} after alignment; check that both show the same body part, or "
            "give an initial transform or --affine moments."
        )
