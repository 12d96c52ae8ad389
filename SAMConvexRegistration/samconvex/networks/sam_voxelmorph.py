"""SAM-VoxelMorph of SAME (Liu et al., 2021): VoxelMorph that also sees how alike the embeddings of neighbors are.

A U-Net over both images; at half resolution, where the embeddings lie, their correlation over 3^3 displacements joins
its maps. It predicts a stationary velocity field, integrated by scaling and squaring.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import Conv3d
from .lapirn import integrated, units_of

CHECKPOINT_FORMAT = "samconvex-sam-voxelmorph"
CHECKPOINT_VERSION = 1

SLOPE = 0.2
NEIGHBORS = 27
ENCODER = (16, 32, 32, 32)
# Four on the way up, joined with the encoder's, then three at full resolution.
DECODER = (32, 32, 32, 32, 32, 16, 16)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(Conv3d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(SLOPE))


class SAMVoxelMorph(nn.Module):
    """Displacement of the moving image at the voxels of the fixed one.

    Args:
        spacing_mm: voxel size of the training images.
        width: factor on all channels; the published network has 1.
        shape: (z, y, x) voxels of the training images, see :func:`units_of`; None, those of the images at hand.
    """

    multiple = 16
    axes = "zyx-lps"
    # The published network sees the fine embeddings of the images that it sees.
    features = "sam-anew-fine"
    feature_stride = 2

    def __init__(self, spacing_mm: float = 2.0, width: float = 1.0, shape: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"spacing_mm": spacing_mm, "width": width, "shape": shape}
        self.spacing_mm, self.shape = spacing_mm, shape
        encoder, decoder = ([max(1, round(width * n)) for n in counts] for counts in (ENCODER, DECODER))
        # What a level gives to the next and to the way up; the first one's maps are joined by the correlation.
        given = [encoder[0] + NEIGHBORS, *encoder[1:]]
        self.down = nn.ModuleList([_conv(n, m, 2) for n, m in zip([2, *given], encoder, strict=False)])
        joined = [given[3], decoder[0] + given[2], decoder[1] + given[1], decoder[2] + given[0]]
        self.up = nn.ModuleList([_conv(n, m) for n, m in zip(joined, decoder[:4], strict=True)])
        last = [decoder[3] + 2, *decoder[4:]]
        self.full = nn.Sequential(*(_conv(n, m) for n, m in zip(last, decoder[4:], strict=False)))
        self.flow = Conv3d(decoder[-1], 3, 3, padding=1)
        # Training starts from about no displacement.
        nn.init.normal_(self.flow.weight, std=1e-5)
        assert self.flow.bias is not None
        nn.init.zeros_(self.flow.bias)

    def forward(self, moving: Tensor, fixed: Tensor, moving_maps: Tensor, fixed_maps: Tensor) -> Tensor:
        """Normalized displacement (B, 3, D, H, W), components x, y, z.

        Args:
            moving, fixed: (B, 1, D, H, W) in [0, 1], sizes multiples of 16.
            moving_maps, fixed_maps: unit vectors (B, C, D/2, H/2, W/2).
        """
        return integrated(self.velocity(moving, fixed, moving_maps, fixed_maps))

    def velocity(self, moving: Tensor, fixed: Tensor, moving_maps: Tensor, fixed_maps: Tensor) -> Tensor:
        """What is integrated to the displacement; arguments as those of :meth:`forward`."""
        if moving.shape != fixed.shape or any(n % self.multiple for n in fixed.shape[2:]):
            raise ValueError(f"images must have one shape, multiples of {self.multiple}, not {tuple(fixed.shape)}")
        images = torch.cat([moving, fixed], 1)
        x, kept = images, []
        for number, layer in enumerate(self.down):
            x = layer(x)
            if number == 0:
                x = torch.cat([x, correlation(fixed_maps, moving_maps)], 1)
            kept.append(x)
        kept.pop()
        for layer in self.up:
            x = F.interpolate(layer(x), scale_factor=2, mode="nearest")
            x = torch.cat([x, kept.pop() if kept else images], 1)
        # Places in an image take all digits, whatever the convolutions are computed in.
        return self.flow(self.full(x)).float() * units_of(self.shape, fixed)


def correlation(fixed: Tensor, moving: Tensor) -> Tensor:
    """(B, 27, D, H, W) cosines of the fixed vectors and the moving ones up to a voxel away; 0 beyond the image."""
    wide = F.pad(moving, (1,) * 6)
    depth, height, width = fixed.shape[2:]
    parts = []
    for shift in range(NEIGHBORS):
        z, y, x = shift // 9, shift // 3 % 3, shift % 3
        parts.append((fixed * wide[:, :, z : z + depth, y : y + height, x : x + width]).sum(1))
    return torch.stack(parts, 1)
