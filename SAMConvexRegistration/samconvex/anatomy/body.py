"""The body in an image: bones, organs and gas inside it, without table and air."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError
from ..space.filling import as_air
from ..space.filters import closed_across_slices, closed_in_slices, opened_in_slices
from ..space.volume import Volume, resample
from .known import KNOWN


def body_mask(volume: Volume, spacing: float = 4.0) -> Volume:
    """Mask of the body, couch and outside air removed, lungs and airways kept.

    Returns:
        uint8 volume on the identity-direction grid of ``spacing`` mm that covers the image.

    Raises:
        InputError: nothing that looks like a body.
    """
    # A registration asks several times: the matched region, the embedding, the organs.
    voxels = volume.tensor.flatten()
    thinned = voxels[:: max(1, len(voxels) // 20_000)].double()
    state = (float(thinned.sum()), float(thinned.square().sum()))  # arrays may be shared with a caller who edits them
    held = KNOWN.bodies.setdefault(volume.tensor, {})
    kept = held.get(key := (volume.grid, spacing, volume.known_modality))
    if kept is not None and kept[0] == state:
        return replace(kept[1], source=volume.source)
    mask = _body_mask(volume, spacing)
    held[key] = (state, mask)
    return mask


def _body_mask(volume: Volume, spacing: float) -> Volume:
    grid = volume.grid.canonical(spacing)
    coarse = resample(as_air(volume), grid)
    values = coarse.tensor[0, 0].cpu().numpy()
    if volume.modality == "ct":
        # Opening within slices takes the couch off the back; what remains of it is not the largest part.
        tissue = _largest_component(opened_in_slices(values > -300.0, 1))
        body = opened_in_slices(_with_gas_inside(tissue, values), 2)
    else:
        tissue = opened_in_slices(values > _otsu(coarse.tensor), 2)
        closed = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(tissue.astype(np.uint8)), (3, 3, 3))
        body = sitk.GetArrayFromImage(sitk.BinaryFillhole(closed))
    body = _largest_component(body)
    # A few cubic centimeters are the smallest thing anyone registers; less is noise.
    if body.sum() * float(np.prod(grid.spacing)) < 2000.0:
        raise InputError(f"No body was found in {volume.name}; check that it is a CT in Hounsfield units or an MR.")
    return Volume(torch.from_numpy(body.astype(np.uint8))[None, None], grid, sitk.sitkUInt8, volume.source)


def _otsu(values: torch.Tensor) -> float:
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(values[0, 0].numpy()))
    # Otsu splits dark from bright tissue as readily as air from tissue: half of it keeps dark tissue.
    return threshold.GetThreshold() / 2


def _with_gas_inside(tissue: np.ndarray, hounsfield: np.ndarray) -> np.ndarray:
    """Add lungs, airways and bowel gas, slice by slice: in 3D the airways connect them to the room.

    A gap that the tissue encloses belongs to the body. One that reaches the image border is room air, unless it is a
    lung cut by the field of view: it then reaches one side only and is denser than air. In a crop of the body's inside,
    with tissue along most of its border, every gap is a lung or bowel.
    """
    # Closing bridges thin chest walls that partial volume opened.
    body = closed_in_slices(tissue, 3)
    # Empty slices in between keep the labels of one 3D call within their slices.
    spaced = np.zeros((2 * body.shape[0], *body.shape[1:]), np.uint8)
    spaced[::2] = ~body
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(spaced)))[::2]
    sides = [np.unique(side) for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])]
    touching, count = np.unique(np.concatenate(sides), return_counts=True)
    is_room = np.zeros(int(labels.max()) + 1, bool)
    is_room[touching] = True
    for label in touching[(count == 1) & (touching > 0)]:
        is_room[label] = not -960.0 < np.median(hounsfield[labels == label]) < -500.0
    is_room[0] = False
    is_crop = _border_share(tissue) > 0.5
    return ~is_room[labels] | is_crop[:, None, None]


def _border_share(mask: np.ndarray, inset: int = 2) -> np.ndarray:
    """Share of each slice's border that is in the mask, ``inset`` voxels inwards: images may have an empty rim."""
    low, high = slice(inset, -inset), -inset - 1
    if min(mask.shape[1:]) <= 2 * inset:
        return np.zeros(len(mask))
    sides = (mask[:, inset, low], mask[:, high, low], mask[:, low, inset], mask[:, low, high])
    return np.concatenate(sides, 1).astype(bool).mean(1)


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest connected part; gaps of a few slices (missing or blanked ones) do not cut a body in two."""
    bridged = sitk.GetImageFromArray(closed_across_slices(mask, 2).astype(np.uint8))
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(bridged))
    sizes = np.bincount(labels.ravel())[1:]
    return (labels == 1 + sizes.argmax()) & (mask > 0) if len(sizes) else np.zeros(mask.shape, bool)
