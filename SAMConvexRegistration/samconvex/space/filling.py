"""Voxels of a CT that were never measured: scanners and other programs fill them up with one value.

Two kinds occur. A scanner pads what lies outside its circle with a value below all Hounsfield units (-2000, -3024,
-32768). A program that turned or moved the image leaves one value, often 0 HU, in the corners that opened: it looks
like tissue and is none.
"""

from __future__ import annotations

import SimpleITK as sitk
import torch

from .volume import Volume

LOWEST_HU = -1024.0
# Less is darker than any tissue but lung: it passes for air anyway.
_AIR_HU = -500.0
# One lowest voxel may be noise of a cone beam; padding is many.
_PADDED_SHARE = 1e-3
# Of the image's voxels; a smaller corner changes nothing.
_CORNER_SHARE = 1e-3
# Of neighbors in tissue; in a drawing without noise a value says nothing.
_NOISY_SHARE = 0.5


def not_measured(volume: Volume) -> torch.Tensor | None:
    """Bool (1, 1, D, H, W): voxels without data; None where all have data, and for other modalities."""
    if volume.modality != "ct":
        return None
    padded, corners = _padding(volume), filled_corners(volume)
    if corners is None:
        return padded
    return corners[1] if padded is None else padded | corners[1]


def _padding(volume: Volume) -> torch.Tensor | None:
    lowest = volume.tensor.min()
    if float(lowest) >= LOWEST_HU or float((volume.tensor == lowest).float().mean()) < _PADDED_SHARE:
        return None
    # Below all Hounsfield units lie also the mixtures of padding and tissue that an earlier interpolation left.
    return volume.tensor < LOWEST_HU


def filled_corners(volume: Volume) -> tuple[float, torch.Tensor] | None:
    """The value of tissue that fills corners of a CT, and where, bool (1, 1, D, H, W); None where nothing does."""
    if volume.modality != "ct" or min(volume.grid.size) < 4:
        return None
    values = volume.tensor[0, 0]
    ends = [(slice(0, 3), 0), (slice(-3, None), -1)]
    seeds: dict[float, list[tuple[int, int, int]]] = {}
    for z, k in ends:
        for y, j in ends:
            for x, i in ends:
                corner = values[k, j, i]
                # Measured tissue is noisy: no cube of it has one value.
                if float(corner) > _AIR_HU and bool((values[z, y, x] == corner).all()):
                    seeds.setdefault(float(corner), []).append(
                        (i % values.shape[2], j % values.shape[1], k % len(values))
                    )
    if not seeds:
        return None
    level, found = max(seeds.items(), key=lambda item: len(item[1]))
    same = sitk.GetImageFromArray((values == level).to(torch.uint8).cpu().numpy())
    region = sitk.GetArrayFromImage(sitk.ConnectedThreshold(same, found, 1, 1)) > 0
    filled = torch.from_numpy(region).to(values.device)
    if float(filled.float().mean()) < _CORNER_SHARE or not _is_noisy(values, ~filled & (values > _AIR_HU)):
        return None
    return level, filled[None, None]


def _is_noisy(values: torch.Tensor, tissue: torch.Tensor) -> bool:
    """False where neighbors in the tissue, (D, H, W), mostly have one value, as in a drawing; or there is none."""
    pairs = tissue[..., 1:] & tissue[..., :-1]
    return bool(pairs.any()) and float((values[..., 1:] != values[..., :-1])[pairs].float().mean()) > _NOISY_SHARE


def as_air(volume: Volume) -> Volume:
    """The volume with air where it has no data; itself where all was measured."""
    lacking = not_measured(volume)
    return volume if lacking is None else volume.with_tensor(volume.tensor.masked_fill(lacking, int(LOWEST_HU)))
