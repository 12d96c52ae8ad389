"""Organs of head, neck and abdomen in CT: a small 3D U-Net that gives each voxel a probability per organ.

Works on 3 mm isotropic CT in the manner of :mod:`.sam_compact`: space-to-depth takes the image to 6 mm before the first
wide convolution, features go down to 48 mm and come back up; only one narrow block runs at 3 mm, on the image and the
upsampled features. Independent sigmoids, not a softmax: organs are learned from cases that do not label all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sam_compact import ConvNorm, ResidualBlock, preprocess, space_to_depth

CHECKPOINT_FORMAT = "samconvex-semantic"
CHECKPOINT_VERSION = 1

# What a recipe without a list of its own learns; the shipped network knows more (training/configs/semantic_trunk.json).
ORGANS = ("brainstem", "spinal cord", "right parotid", "left parotid", "esophagus", "larynx", "mandible")
# Training images keep Hounsfield units of this range only, so nothing beyond it may reach the network.
HU_RANGE = (-1000.0, 1000.0)
# Organs fill less than a hundredth of an image: without this, the first steps only learn that.
_RARE = -4.0


def prepare(hu: Tensor) -> Tensor:
    """Hounsfield units -> network input of the same shape, 0 for air."""
    return preprocess(hu.clamp(*HU_RANGE))


class SemanticNet(nn.Module):
    """Organ logits of a CT.

    Args:
        widths: channels at 6, 12, 24 and 48 mm.
        blocks: residual blocks at each of them.
        detail: channels at 3 mm.
        organs: names of the output channels.
        spacing_mm: isotropic voxel size the network was trained at.
    """

    multiple = 16

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = (32, 64, 64, 96),
        blocks: tuple[int, ...] | list[int] = (1, 2, 2, 1),
        detail: int = 16,
        organs: tuple[str, ...] | list[str] = ORGANS,
        spacing_mm: float = 3.0,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4:
            raise ValueError("SemanticNet needs four widths and four block counts")
        self.organs = tuple(organs)
        self.spacing_mm = float(spacing_mm)
        self.config: dict[str, Any] = {
            "widths": [int(w) for w in widths],
            "blocks": [int(b) for b in blocks],
            "detail": int(detail),
            "organs": list(organs),
            "spacing_mm": float(spacing_mm),
        }
        self.stem = ConvNorm(8, widths[0])
        self.stages = nn.ModuleList()
        for level in range(4):
            stage: list[nn.Module] = []
            if level:
                stage.append(ConvNorm(widths[level - 1], widths[level], kernel=2, stride=2))
            stage += [ResidualBlock(widths[level]) for _ in range(blocks[level])]
            self.stages.append(nn.Sequential(*stage))
        # Finer levels are added, not concatenated, to what comes up: half the memory, and the blocks after them mix.
        self.up = nn.ModuleList([nn.ConvTranspose3d(widths[k + 1], widths[k], 2, 2) for k in range(3)])
        self.merge = nn.ModuleList([ConvNorm(widths[k], widths[k]) for k in range(3)])
        self.to_detail = nn.ConvTranspose3d(widths[0], detail, 2, 2)
        self.from_image = ConvNorm(1, detail, relu=False)
        self.head = nn.Sequential(ConvNorm(detail, detail), nn.Conv3d(detail, len(self.organs), 1))
        nn.init.constant_(self.head[1].bias, _RARE)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, D, H, W) from :func:`prepare`, sizes multiples of 16 -> logits (B, organs, D, H, W), float32."""
        if image.ndim != 5 or image.shape[1] != 1 or any(n % self.multiple for n in image.shape[2:]):
            raise ValueError(f"input must be (B, 1, D, H, W), multiples of {self.multiple}, not {tuple(image.shape)}")
        x = self.stem(space_to_depth(image).contiguous(memory_format=torch.channels_last_3d))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for k in (2, 1, 0):
            x = self.merge[k](levels[k] + self.up[k](x))
        x = F.relu(self.to_detail(x) + self.from_image(image), inplace=True)
        return self.head(x).float()
