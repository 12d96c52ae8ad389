"""Random contrasts: a Bezier intensity curve and inversion, as if another scanner or sequence had seen the patient."""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLES = 256


def bezier_table(generator: torch.Generator) -> Tensor:
    """(256,) values in [0, 1] of a monotone cubic Bezier curve from (0, 0) to (1, 1), its inner points random.

    Four control points as in MASR (Mok et al., CVPR 2024), table over equally spaced intensities.
    """
    inner = torch.rand(2, 2, generator=generator).sort(0).values
    points = torch.cat([torch.zeros(1, 2), inner, torch.ones(1, 2)])
    t = torch.linspace(0, 1, 4 * _SAMPLES)
    basis = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3], 1)
    x, y = (basis @ points).unbind(1)
    # x rises with t because the inner control points are sorted.
    wanted = torch.linspace(0, 1, _SAMPLES)
    after = torch.searchsorted(x.contiguous(), wanted).clamp(1, len(x) - 1)
    share = (wanted - x[after - 1]) / (x[after] - x[after - 1]).clamp(min=1e-6)
    return (y[after - 1] + share.clamp(0, 1) * (y[after] - y[after - 1])).clamp(0, 1)


def random_contrast(
    image: Tensor, generator: torch.Generator, *, inversion: float = 0.5, noise: float = 0.02
) -> Tensor:
    """Values in [0, 1] through a random curve, inverted with probability ``inversion``, with a little noise."""
    table = bezier_table(generator)
    if float(torch.rand(1, generator=generator)) < inversion:
        table = 1 - table
    position = image.float().clamp(0, 1) * (_SAMPLES - 1)
    below = position.floor().long().clamp(max=_SAMPLES - 2)
    changed = torch.lerp(table[below], table[below + 1], position - below)
    if noise:
        changed = changed + noise * torch.randn(changed.shape, generator=generator)
    return changed.clamp(0, 1)
