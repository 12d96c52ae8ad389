"""An image's embedding: prepared, cut into tiles, run through the network."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ..device import cpu_has_bfloat16, ran_out_of_memory
from ..errors import InputError, ResourceError
from ..progress import Progress, stage
from ..space.filters import dilated
from ..space.grid import Grid
from ..space.intensity import check_ct, looks_like_ct
from ..space.sampling import slabs
from ..space.volume import FeatureMap, Volume, resample
from ..weights.models import SamModel, SemanticModel, load_sam, suited_to
from .body import body_mask
from .embedding import SamEmbedding

_AIR_HU = -1000.0
# Of an X-ray image prepared for its network, 0 to about 1.
_DARK = 0.02


def embed(
    volume: Volume,
    model: SamModel | str | os.PathLike | None = None,
    *,
    device: torch.device | str = "cpu",
    mask: Volume | None = None,
    progress: Progress | None = None,
) -> SamEmbedding:
    """Embed a volume of any geometry, or an X-ray image (a volume of one slice).

    Args:
        model: a loaded network, a weights name or file; None is the shipped one.
        mask: what counts as body, instead of :func:`samconvex.anatomy.body.body_mask`.

    Raises:
        InputError: no body, wrong modality, unusable weights. ResourceError: the device ran out of memory.
        Cancelled: by ``progress``.
    """
    model = model if isinstance(model, SamModel) else load_sam(model)
    model = suited_to(model, volume)
    report = stage(progress, "embedding")
    report(0.0)
    grid, inside, values = _prepare_slice(volume, mask, model) if model.planar else _prepare(volume, mask, model)
    report(0.15)
    try:
        fine, coarse = network_maps(model, values, torch.device(device), stage(progress, "embedding", 0.15, 1.0))
    except RuntimeError as error:
        if ran_out_of_memory(error):
            raise ResourceError(
                f"Embedding {volume.name} needs more memory than {device} has; crop the volume or use another device."
            ) from error
        raise
    fine_grid = grid.strided(model.fine_stride)
    share = F.avg_pool3d(inside.float(), tuple(reversed(model.fine_stride)))[0, 0]
    report(1.0)
    return SamEmbedding(
        FeatureMap(fine, fine_grid),
        FeatureMap(coarse, grid.strided(model.coarse_stride)),
        (share >= 0.5).to(fine.device),
        model.sha256,
        volume.grid,
        model.calibration,
    )


def _prepare(volume: Volume, mask: Volume | None, model: SamModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Grid around the body, the body on it (bool), and the network's input."""
    is_ct = looks_like_ct(volume)
    if model.modality == "ct":
        check_ct(volume)
    grid, inside, near = body_grid(volume, mask if mask is not None else body_mask(volume), model)
    values = resample(volume, grid).tensor
    air = _AIR_HU if is_ct else float(values.min())
    values = values.masked_fill(~near, air)
    return grid, inside, model.prepare(values) if is_ct else _prepare_mr(values, inside)


def _prepare_slice(volume: Volume, mask: Volume | None, model: SamModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """The same of an X-ray image, whose own plane is the grid; what is as dark as the background is not body."""
    grid = volume.grid.with_spacing((model.spacing_mm, model.spacing_mm, volume.grid.spacing[2]))
    size = -(-np.asarray(grid.size) // np.asarray(model.multiple)) * np.asarray(model.multiple)
    grid = grid.cropped((0, 0, 0), tuple(int(s) for s in size))
    values = model.prepare(resample(volume, grid).tensor)
    inside = _inside_image(volume.grid, grid)
    inside &= resample(mask, grid, mode="nearest").tensor > 0 if mask is not None else values > _DARK
    if not bool(inside.any()):
        raise InputError(f"{volume.name} shows nothing but background; check that dense tissue is bright in it.")
    return grid, inside, values


def body_grid(volume: Volume, body: Volume, model: SamModel | SemanticModel) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Grid around the body at the network's spacing, sizes at its multiples; body and body plus skin (bool)."""
    where = torch.nonzero(body.tensor[0, 0]).flip(1).double().numpy()
    if not len(where):
        raise InputError(f"The mask of {volume.name} is empty; draw it, or leave it out.")
    low, high = where.min(0), where.max(0)
    corners = np.array([np.where([c & 1, c & 2, c & 4], high + 0.5, low - 0.5) for c in range(8)])
    points = body.grid.voxels_to_points(corners)
    # Not beyond the image, where there is only padding.
    image = volume.grid.corners()
    lower = np.maximum(points.min(0) - 2 * model.spacing_mm, image.min(0))
    upper = np.minimum(points.max(0) + 2 * model.spacing_mm, image.max(0))
    grid = Grid.covering(np.stack([lower, np.maximum(upper, lower + model.spacing_mm)]), model.spacing_mm)
    multiple = np.asarray(model.multiple)
    size = -(-np.asarray(grid.size) // multiple) * multiple
    # Half of the padding on each side would shift voxels off the grid; all of it goes to the far ends.
    grid = grid.cropped((0, 0, 0), tuple(int(s) for s in size))
    inside = resample(body, grid, mode="nearest").tensor > 0
    image_box = _inside_image(volume.grid, grid)
    inside &= image_box
    near = dilated(inside, 1) & image_box
    return grid, inside, near


def _inside_image(image: Grid, grid: Grid) -> torch.Tensor:
    """Bool (1, 1, D, H, W): voxel centers of ``grid`` that lie in ``image``."""
    if image.direction == grid.direction:  # a box of indices
        first = image.points_to_voxels(np.asarray([grid.origin]))[0]
        within = []
        for axis in range(3):
            place = first[axis] + np.arange(grid.size[axis]) * (grid.spacing[axis] / image.spacing[axis])
            within.append(torch.from_numpy((place > -0.5 - 1e-4) & (place < image.size[axis] - 0.5 + 1e-4)))
        x, y, z = within
        return (z[:, None, None] & y[:, None] & x)[None, None]
    parts = []
    for z0, z1 in slabs(grid):
        points = grid.voxel_centers(z0, z1, reference=grid.center)
        coordinates = image.normalized(points, grid.center)
        size = torch.tensor(image.size)
        parts.append((coordinates.abs() <= size / (size - 1).clamp(min=1) + 1e-4).all(-1))
    return torch.cat(parts)[None, None]


def _prepare_mr(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    from ..networks.sam_official import preprocess_mr

    inner = values[inside]
    inner = inner[:: max(1, inner.numel() // 1_000_000)]
    lower, upper = torch.quantile(inner, torch.tensor([0.002, 0.998])).tolist()
    return preprocess_mr(values, min(lower, float(values.min())), upper)


@torch.inference_mode()
def network_maps(
    model: SamModel, values: torch.Tensor, device: torch.device, report: Callable[[float], None] = lambda fraction: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fine and coarse maps (1, C, d, h, w) in half precision, slab by slab where the volume is large.

    Args:
        values: (1, 1, D, H, W) as the network's ``prepare`` gives them, sizes at its multiples.
        report: receives the finished fraction; may raise Cancelled.
    """
    network = model.network.to(device)
    low_precision = torch.float16 if device.type == "cuda" else torch.bfloat16
    autocast = torch.autocast(device.type, low_precision, enabled=device.type == "cuda" or cpu_has_bfloat16())
    fine_parts, coarse_parts = [], []
    for z0, z1, first, last in tiles(values.shape[2:], model):
        part = values[:, :, first:last].to(device).contiguous(memory_format=torch.channels_last_3d)
        with autocast:
            maps = network(part)
        fine = maps["fine"]
        if "semantic" in maps:
            # UAE: the semantic head joins the appearance head with equal weight.
            fine = torch.cat([fine, maps["semantic"]], 1) * 0.5**0.5
        fine_parts.append(_rows(fine, z0 - first, z1 - first, model.fine_stride[2]))
        coarse_parts.append(_rows(maps["coarse"], z0 - first, z1 - first, model.coarse_stride[2]))
        report(z1 / values.shape[2])
    return torch.cat(fine_parts, 2).clone(), torch.cat(coarse_parts, 2).clone()


def _rows(features: torch.Tensor, first: int, last: int, stride: int) -> torch.Tensor:
    # Channels stay last in memory: matching reads whole descriptors.
    return features[:, :, first // stride : last // stride].half()


def tiles(shape: torch.Size, model: SamModel | SemanticModel) -> list[tuple[int, int, int, int]]:
    """Slices (z0, z1) that a tile answers for and (first, last) that it sees; all at the network's multiple."""
    depth, plane = shape[0], shape[1] * shape[2]
    step = model.multiple[2]
    halo = -(-model.halo // step) * step
    core = depth
    if depth * plane > model.tile_voxels:
        core = max(step, (model.tile_voxels // plane - 2 * halo) // step * step)
    return [(z, min(z + core, depth), max(z - halo, 0), min(z + core + halo, depth)) for z in range(0, depth, core)]
