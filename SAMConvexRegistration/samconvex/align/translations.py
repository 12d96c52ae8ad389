"""Exhaustive search over all translations of one feature image against another, in the Fourier domain."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ..space.totals import total


def chance_level(
    fixed: torch.Tensor, fixed_weight: torch.Tensor, moving: torch.Tensor, moving_weight: torch.Tensor
) -> float:
    """Expected squared feature distance of a random fixed voxel and a random moving voxel.

    Args:
        fixed, moving: (C, ...) features. fixed_weight, moving_weight: the spatial part's weights >= 0.
    """

    def moments(values: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        share = (weight / total(weight).clamp(min=1e-6)).flatten()
        values = values.flatten(1)
        return values @ share, (values.square() @ share).sum()

    fixed_mean, fixed_power = moments(fixed, fixed_weight)
    moving_mean, moving_power = moments(moving, moving_weight)
    return float(fixed_power + moving_power - 2 * (fixed_mean * moving_mean).sum())


def translation_gain(
    fixed: torch.Tensor,
    fixed_weight: torch.Tensor,
    moving: torch.Tensor,
    moving_weight: torch.Tensor,
    chance: float,
    *,
    least_overlap: float = 0.1,
) -> torch.Tensor:
    """Gain of every whole-voxel translation: how much better than chance the overlapping tissue agrees.

    gain(d) = sum_x wf(x) wm(x+d) (chance - |f(x) - m(x+d)|^2) / (chance * min(sum wf, sum wm)): 1 for identical
    images, 0 for unrelated ones; overlap that does not agree adds nothing, so that small and large overlaps compare.

    Args:
        fixed, moving: (C, D, H, W) features of equal voxel size. fixed_weight, moving_weight: (D, H, W).
        chance: squared distance that counts as no agreement, see :func:`chance_level`.
        least_overlap: translations with less overlap than this share of the smaller body get -1.

    Returns:
        (d, h, w) gains; index i along an axis is the translation i, or i - size where i >= the moving size.
    """
    sizes = [_fast_size(a + b) for a, b in zip(fixed.shape[1:], moving.shape[1:], strict=True)]

    def transform(values: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfftn(values, s=sizes)

    # Offsets common to both cancel in the distance; removing them keeps the sums small.
    offset = (fixed.mean((1, 2, 3)) + moving.mean((1, 2, 3))) / 2
    weight_f, weight_m = transform(fixed_weight).conj(), transform(moving_weight)
    power_f, power_m = torch.zeros_like(fixed_weight), torch.zeros_like(moving_weight)
    cross = torch.zeros_like(weight_m)
    for channel in range(fixed.shape[0]):
        f, m = fixed[channel] - offset[channel], moving[channel] - offset[channel]
        power_f += f.square()
        power_m += m.square()
        cross += transform(fixed_weight * f).conj() * transform(moving_weight * m)
    overlap = weight_f * weight_m
    agreement = chance * overlap + 2 * cross
    agreement -= transform(fixed_weight * power_f).conj() * weight_m + weight_f * transform(moving_weight * power_m)
    smaller = float(min(total(fixed_weight), total(moving_weight)))
    gain = torch.fft.irfftn(agreement, s=sizes) / (chance * smaller)
    return gain.masked_fill_(torch.fft.irfftn(overlap, s=sizes) < least_overlap * smaller, -1.0)


def peaks(gain: torch.Tensor, moving_shape: tuple[int, ...], count: int) -> list[tuple[float, np.ndarray]]:
    """The ``count`` highest local maxima as (gain, translation in voxels x, y, z)."""
    highest = gain[None, None]
    for kernel in ((5, 1, 1), (1, 5, 1), (1, 1, 5)):
        highest = F.max_pool3d(highest, kernel, 1, tuple(k // 2 for k in kernel))
    highest = highest[0, 0]
    flat = torch.where(gain == highest, gain, torch.full_like(gain, -2.0)).flatten()
    values, indices = flat.topk(min(count, flat.numel()))
    found = []
    for value, index in zip(values.tolist(), indices.tolist(), strict=True):
        position = np.array(np.unravel_index(index, gain.shape))
        shift = np.where(position >= np.array(moving_shape), position - np.array(gain.shape), position)
        if value > -1.0:
            found.append((value, shift[::-1].astype(float)))
    return found


def _fast_size(size: int) -> int:
    """The next size with factors 2, 3 and 5 only."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1
