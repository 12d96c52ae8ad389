"""The one place that interpolates: values of a lattice at points, with ITK's rule for what lies inside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .grid import Grid


def sample(
    values: torch.Tensor,
    grid: Grid,
    points: torch.Tensor,
    *,
    reference: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    mode: str = "linear",
    fill: float | None = None,
) -> torch.Tensor:
    """Interpolate ``values`` on ``grid`` at LPS points.

    Args:
        values: (1, C, D, H, W) floating point; any type with "nearest", whose values are kept exactly; any type of one
            channel with "labels".
        grid: the lattice of ``values``.
        points: (d, h, w, 3) LPS mm relative to ``reference``.
        reference: LPS mm (3,) that was subtracted from the points.
        mode: "linear", "nearest", or "labels": of the labels around a point, the one that linear interpolation of
            its own mask gives the largest share (Schaerer et al., Insight Journal 2014); ids are kept exactly.
        fill: value outside the buffer, by ITK's rule index outside [-0.5, size - 0.5]; None repeats the edge.

    Returns:
        (1, C, d, h, w) in the dtype of ``values``.
    """
    coordinates = grid.normalized(points, reference)
    if mode in ("nearest", "labels"):
        result = (_nearest if mode == "nearest" else _largest_share)(values, coordinates)
    else:
        result = interpolate(values, coordinates.to(values.dtype))
    if fill is not None:
        result.masked_fill_(~inside(grid, coordinates)[None, None], fill)
    return result


def _nearest(values: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """(1, C, d, h, w): the voxels of ``values`` next to normalized coordinates (d, h, w, 3), edges repeated.

    Label ids above 2^24 are no float32 numbers, so voxels are picked and not computed with.
    """
    flat = torch.zeros(coordinates.shape[:-1], dtype=torch.long, device=values.device)
    for axis in (2, 1, 0):
        size = values.shape[4 - axis]
        place = (coordinates[..., axis] + 1) / 2 * (size - 1)
        flat = flat * size + place.clamp_(0, size - 1).round_().long()
    return values.flatten(2)[:, :, flat]


def _largest_share(values: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """(1, 1, d, h, w): of the eight labels around normalized coordinates the one of the largest share."""
    flat = values.flatten()
    lower, upper, shares = [], [], []
    stride = 1
    for axis in range(3):
        last = values.shape[4 - axis] - 1
        place = ((coordinates[..., axis].flatten() + 1) / 2 * last).clamp_(0, last)
        first = place.floor().clamp_(max=max(last - 1, 0))
        shares.append(place - first)
        lower.append(first.long() * stride)
        upper.append((first.long() + 1).clamp_(max=last) * stride)
        stride *= last + 1
    corners = list(itertools.product((0, 1), repeat=3))
    ends = list(zip(lower, upper, strict=True))
    result = flat[lower[0] + lower[1] + lower[2]]
    mixed = torch.zeros_like(result, dtype=torch.bool)
    for corner in corners[1:]:
        mixed |= flat[sum(end[which] for end, which in zip(ends, corner, strict=True))] != result
    among = mixed.nonzero()[:, 0]
    labels = torch.stack([flat[sum(end[w][among] for end, w in zip(ends, corner, strict=True))] for corner in corners])
    near = [(1 - share[among], share[among]) for share in shares]
    weights = torch.stack([near[0][x] * near[1][y] * near[2][z] for x, y, z in corners])
    # Of equal shares the nearest corner's.
    totals = torch.stack([((labels == label) * weights).sum(0) for label in labels]) + 1e-4 * weights
    result[among] = labels.gather(0, totals.argmax(0)[None])[0]
    return result.view(1, 1, *coordinates.shape[:-1])


def sample_aligned(values: torch.Tensor, grid: Grid, target: Grid, *, mode: str, fill: float) -> torch.Tensor:
    """:func:`sample` at the voxel centers of a ``target`` with the same axes, axis by axis: several times faster."""
    first = grid.points_to_voxels(np.asarray(target.origin, dtype=float)[None])[0]
    axes = []
    for axis, count in enumerate(target.size):
        step = target.spacing[axis] / grid.spacing[axis]
        place = float(first[axis]) + step * torch.arange(count, dtype=torch.float64, device=values.device)
        last = grid.size[axis] - 1
        slack = 0.5 + 0.5e-6 * last
        outside = (place < -slack) | (place > last + slack)
        place = place.clamp(0, last)
        low = place.floor().clamp(max=max(last - 1, 0)).long()
        share = place - low if mode == "nearest" else (place - low).to(values.dtype)
        axes.append((place.round().long(), low, (low + 1).clamp(max=last), share, outside))
    result = torch.empty(1, values.shape[1], *target.shape, dtype=values.dtype, device=values.device)
    for z0, z1 in slabs(target):
        part = values
        # The slices first: what is not asked for is not interpolated.
        for axis, chosen in ((2, slice(z0, z1)), (1, slice(None)), (0, slice(None))):
            nearest, low, high, share, _ = (each[chosen] for each in axes[axis])
            dimension = 4 - axis
            if mode == "nearest":
                part = part.index_select(dimension, nearest)
                continue
            shape = [1] * 5
            shape[dimension] = -1
            part = torch.lerp(part.index_select(dimension, low), part.index_select(dimension, high), share.view(shape))
        result[:, :, z0:z1] = part
    for axis in range(3):
        result.index_fill_(4 - axis, axes[axis][4].nonzero()[:, 0], fill)
    return result


def interpolate(values: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """Interpolate (1, C, D, H, W) values at normalized coordinates (d, h, w, 3), edges repeated: (1, C, d, h, w)."""
    # On a CPU grid_sample runs one thread per batch item, so slices become items.
    threads = torch.get_num_threads() if values.device.type == "cpu" and not values.requires_grad else 1
    depth, height, width, _ = coordinates.shape
    split = depth - depth % threads
    if threads == 1 or split * height * width < 20_000:
        split = 0
    parts = []
    if split:
        items = coordinates[:split].view(threads, split // threads, height, width, 3)
        found = F.grid_sample(
            values.expand(threads, -1, -1, -1, -1), items, mode="bilinear", padding_mode="border", align_corners=True
        )
        parts.append(found.transpose(0, 1).reshape(1, values.shape[1], split, height, width))
    if split < depth:
        parts.append(
            F.grid_sample(values, coordinates[None, split:], mode="bilinear", padding_mode="border", align_corners=True)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def inside(grid: Grid, coordinates: torch.Tensor) -> torch.Tensor:
    """Bool (...): normalized ``coordinates`` (..., 3) lie in the buffer, edges of the outer voxels included."""
    size = torch.as_tensor(grid.size, dtype=coordinates.dtype, device=coordinates.device)
    limit = torch.where(size > 1, size / (size - 1).clamp(min=1), torch.ones_like(size)) + 1e-6
    return (coordinates.abs() <= limit).all(-1)


def slabs(grid: Grid, voxels_per_slab: int = 2_000_000) -> list[tuple[int, int]]:
    """Slice ranges (z0, z1) of ``grid`` that hold about ``voxels_per_slab`` voxels each."""
    depth = max(1, voxels_per_slab // (grid.size[0] * grid.size[1]))
    return [(z, min(z + depth, grid.size[2])) for z in range(0, grid.size[2], depth)]
