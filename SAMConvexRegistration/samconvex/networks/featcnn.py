"""FeatCNN of SUITS: two input branches, one per modality, that end in a common trunk of descriptors (Y shape).

Blendowski et al., Medical Image Analysis 2020. The paper's table lists a 5^3 convolution with dilation 2 (1 to 16
channels) and a 3^3 one (16 to 32) per modality, then shared 3^3 ones: a strided one, a plain one and a last one to 12
sigmoid channels, instance norm and ReLU after all but the last: 97,484 parameters at stride 2. Its text says about 155
thousand parameters and stride 4. Both hold if the strided pair of shared convolutions occurs twice: 152,844
parameters at stride 4. ``reductions`` chooses between them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .convolution import Conv3d

CHECKPOINT_FORMAT = "samconvex-featcnn"
CHECKPOINT_VERSION = 1
BRANCHES = ("ct", "mr")


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        Conv3d(inputs, outputs, kernel, stride, padding, dilation), nn.InstanceNorm3d(outputs), nn.ReLU(inplace=True)
    )


class FeatCNN(nn.Module):
    """Descriptors in (0, 1) at a coarser stride, comparable between the modalities of its branches.

    Args:
        reductions: strided pairs in the trunk: 1 is the paper's table (stride 2), 2 its text (stride 4).
        channels: descriptor length.
    """

    def __init__(self, reductions: int = 1, channels: int = 12) -> None:
        super().__init__()
        if reductions not in (1, 2):
            raise ValueError("reductions must be 1 (stride 2) or 2 (stride 4)")
        self.config: dict[str, Any] = {"reductions": reductions, "channels": channels}
        self.stride = 2**reductions
        self.branches = nn.ModuleDict(
            {name: nn.Sequential(_block(1, 16, kernel=5, dilation=2), _block(16, 32)) for name in BRANCHES}
        )
        trunk: list[nn.Module] = []
        for _ in range(reductions):
            trunk += [_block(32, 32, stride=2), _block(32, 32)]
        self.trunk = nn.Sequential(*trunk, Conv3d(32, channels, 3, padding=1))

    def forward(self, image: Tensor, branch: str) -> Tensor:
        """(B, 1, D, H, W) in [0, 1], sizes multiples of the stride -> (B, channels, D/stride, H/stride, W/stride).

        A strided convolution centers output ``i`` on input ``stride * i``; the image is averaged with its next voxels
        first, so that output ``i`` stands for the middle of its block, as everywhere in this package.
        """
        if image.ndim != 5 or image.shape[1] != 1 or any(n % self.stride for n in image.shape[2:]):
            raise ValueError(f"input must be (B, 1, D, H, W), multiples of {self.stride}, not {tuple(image.shape)}")
        return torch.sigmoid(self.trunk(self.branches[branch](_centered(image, self.stride))))


def _centered(image: Tensor, stride: int) -> Tensor:
    """The image sampled (stride - 1) / 2 voxels further along every axis, by linear interpolation, edges repeated."""
    whole, half = divmod(stride - 1, 2)
    for axis in (2, 3, 4):
        last = image.shape[axis] - 1
        index = torch.arange(last + 1, device=image.device)
        first = image.index_select(axis, (index + whole).clamp(max=last))
        if half:
            first = (first + image.index_select(axis, (index + whole + 1).clamp(max=last))) / 2
        image = first
    return image
