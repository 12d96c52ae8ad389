"""Opening and closing of binary images, within slices or across them, by shifts: ten times faster than ITK's filters.

The discs are ITK's digital balls: a 3 x 3 square grown by r - 1 crosses.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_SLICES, _ROWS, _COLUMNS = 0, 1, 2


def opened_in_slices(mask: np.ndarray, radius: int) -> np.ndarray:
    """Opening of a (D, H, W) mask by a disc within every slice; what lies beyond the image takes nothing away."""
    return _dilated(_eroded(torch.from_numpy(mask > 0), radius), radius).numpy()


def closed_in_slices(mask: np.ndarray, radius: int) -> np.ndarray:
    """Closing of a (D, H, W) mask by a disc within every slice; nothing is closed against the image's border."""
    padded = F.pad(torch.from_numpy(mask > 0), (radius,) * 4)
    return _eroded(_dilated(padded, radius), radius)[:, radius:-radius, radius:-radius].numpy()


def closed_across_slices(mask: np.ndarray, slices: int) -> np.ndarray:
    """Closing of a (D, H, W) mask over gaps of up to twice as many ``slices``."""
    padded = F.pad(torch.from_numpy(mask > 0), (0, 0, 0, 0, slices, slices))
    for _ in range(slices):
        padded = padded | beside(padded, _SLICES)
    for _ in range(slices):
        padded = ~(~padded | beside(~padded, _SLICES))
    return padded[slices:-slices].numpy()


def _eroded(mask: torch.Tensor, radius: int) -> torch.Tensor:
    return ~_dilated(~mask, radius)


def _dilated(mask: torch.Tensor, radius: int) -> torch.Tensor:
    mask = mask | beside(mask, _COLUMNS)
    mask = mask | beside(mask, _ROWS)
    for _ in range(radius - 1):
        mask = mask | beside(mask, _COLUMNS) | beside(mask, _ROWS)
    return mask


def beside(mask: torch.Tensor, axis: int) -> torch.Tensor:
    """Bool, as the mask: voxels with a neighbor in it along ``axis``."""
    found = torch.zeros_like(mask)
    count = mask.shape[axis] - 1
    found.narrow(axis, 1, count).logical_or_(mask.narrow(axis, 0, count))
    found.narrow(axis, 0, count).logical_or_(mask.narrow(axis, 1, count))
    return found


def smooth(tensor: torch.Tensor, passes: int, radius: int = 1) -> torch.Tensor:
    """``passes`` box filters of (2 radius + 1)^3 voxels over (1, C, D, H, W); border means count real voxels only."""
    for _ in range(passes):
        tensor = _BoxMean.apply(tensor, radius)
    return tensor


def continued(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """``values`` (1, C, D, H, W) where ``known`` (1, 1, D, H, W) bool, elsewhere continued smoothly from there.

    Pull-push: ever coarser means of what is known, interpolated back into the gaps.
    """
    if bool(known.all()) or not bool(known.any()):
        return values
    weight = known.to(values.dtype)
    levels = [(values * weight, weight)]
    while not bool((levels[-1][1] > 0).all()):
        total, weight = (F.avg_pool3d(F.pad(t, _to_even(t)), 2) for t in levels[-1])
        levels.append((total, weight))
    filled = levels[-1][0] / levels[-1][1]
    for total, weight in reversed(levels[1:-1]):
        share = (8 * weight).clamp(max=1.0)
        filled = share * total / weight.clamp(min=1e-12) + (1 - share) * _finer(filled, total)
    return torch.where(known, values, _finer(filled, values))


def _finer(coarse: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    depth, height, width = like.shape[2:]
    return F.interpolate(coarse, scale_factor=2, mode="trilinear")[..., :depth, :height, :width]


def _to_even(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(part for n in reversed(tensor.shape[2:]) for part in (0, n % 2))


def dilated(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Bool (1, 1, D, H, W) mask grown by ``reach`` voxels along every axis (a cube)."""
    for axis in (2, 3, 4):
        for _ in range(reach):
            mask = mask | beside(mask, axis)
    return mask


class _BoxMean(torch.autograd.Function):
    """Box mean as shifted sums along each axis: several times faster on a CPU than average pooling."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor, radius: int) -> torch.Tensor:
        ctx.radius = radius
        for axis in (2, 3, 4):
            tensor = _window_sum(tensor, axis, radius)
            tensor *= _share(tensor, axis, radius)
        return tensor

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        for axis in (2, 3, 4):
            gradient = _window_sum(gradient * _share(gradient, axis, ctx.radius), axis, ctx.radius)
        return gradient, None


def _window_sum(tensor: torch.Tensor, axis: int, radius: int) -> torch.Tensor:
    result = tensor.clone(memory_format=torch.contiguous_format)
    for shift in range(1, min(radius, tensor.shape[axis] - 1) + 1):
        count = tensor.shape[axis] - shift
        result.narrow(axis, shift, count).add_(tensor.narrow(axis, 0, count))
        result.narrow(axis, 0, count).add_(tensor.narrow(axis, shift, count))
    return result


def _share(tensor: torch.Tensor, axis: int, radius: int) -> torch.Tensor:
    """One over the number of voxels under the window, shaped to broadcast along ``axis``."""
    size = tensor.shape[axis]
    place = torch.arange(size, device=tensor.device)
    count = (place + radius).clamp(max=size - 1) - (place - radius).clamp(min=0) + 1
    return (1 / count.to(tensor.dtype)).view([-1 if a == axis else 1 for a in range(tensor.ndim)])
