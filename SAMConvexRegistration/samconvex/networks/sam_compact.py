"""The compact anatomical embedding network, made for CPUs: a few megabytes, a chest CT in about a second.

A residual feature pyramid on 2 mm isotropic CT. Space-to-depth takes the image to 4 mm before the first convolution,
so that nothing ever runs at full resolution; features go down to 32 mm and come back up to two heads, as in SAM (Yan et
al., IEEE TMI 2022): a coarse one at 16 mm that sees the whole neighborhood and a fine one at 4 mm.

Every resolution change works on whole 2x2x2 blocks, so that feature voxel ``i`` of a head with stride ``s`` sits
exactly at input voxel ``s * i + (s - 1) / 2`` (:meth:`SAMCompact.feature_center_offset`).
"""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .convolution import Conv3d

CHECKPOINT_FORMAT = "samconvex-sam-compact"
CHECKPOINT_VERSION = 1

HU_AIR, HU_CENTER, HU_SCALE, HU_MAX = -1000.0, 40.0, 150.0, 1500.0
_AIR_ASINH = math.asinh((HU_CENTER - HU_AIR) / HU_SCALE)


def preprocess(image: Tensor) -> Tensor:
    """Hounsfield units -> network input of the same shape: 0 for air, 1 for soft tissue (40 HU), 2 for dense bone.

    A hyperbolic arcsine keeps soft tissue contrast wide and compresses lung and bone. Air being zero makes the zero
    padding of the convolutions, and of an image padded to a multiple, look like air.
    """
    clipped = image.float().clamp(HU_AIR, HU_MAX)
    return 1.0 + torch.asinh((clipped - HU_CENTER) / HU_SCALE) / _AIR_ASINH


PREPROCESSING: dict[str, Any] = {
    "kind": "asinh",
    "hu_air": HU_AIR,
    "hu_center": HU_CENTER,
    "hu_scale": HU_SCALE,
    "hu_max": HU_MAX,
    "air_value": 0.0,
}


_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: Conv3d}
_DECONVOLUTION: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MEMORY = {2: torch.channels_last, 3: torch.channels_last_3d}


def space_to_depth(x: Tensor) -> Tensor:
    """(B, 1, D, H, W) -> (B, 8, D/2, H/2, W/2), or (B, 1, H, W) -> (B, 4, H/2, W/2)."""
    if x.ndim == 4:
        return F.pixel_unshuffle(x, 2)
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * 8, d // 2, h // 2, w // 2)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and optionally ReLU; batch norm so that crops and whole volumes are treated alike."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True, dimension: int = 3
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        layers: list[nn.Module] = [
            _CONVOLUTION[dimension](inputs, outputs, kernel, stride, padding, bias=False),
            _NORM[dimension](outputs),
        ]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


_Network = TypeVar("_Network", bound=nn.Module)


def fused(network: _Network) -> _Network:
    """A copy for inference, every batch norm of a :class:`ConvNorm` folded into its convolution."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module[0] = fuse_conv_bn_eval(module[0], module[1])  # type: ignore[type-var, arg-type]
            del module[1]
    return network


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, dimension: int = 3) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, dimension=dimension)
        self.second = ConvNorm(channels, channels, relu=False, dimension=dimension)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)), inplace=True)


class SAMCompact(nn.Module):
    """Coarse and fine anatomical embeddings of a CT.

    Args:
        widths: channels at 4, 8, 16 and 32 mm.
        blocks: residual blocks at each of them.
        fine_channels, coarse_channels: embedding lengths.
        spacing_mm: isotropic voxel size the network was trained at.
    """

    dimension = 3
    fine_stride = 2
    coarse_stride = 8
    multiple = 16
    preprocess = staticmethod(preprocess)

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = (32, 64, 96, 96),
        blocks: tuple[int, ...] | list[int] = (1, 2, 2, 2),
        fine_channels: int = 64,
        coarse_channels: int = 64,
        spacing_mm: float = 2.0,
        **_description: Any,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4:
            raise ValueError("SAMCompact needs four widths and four block counts")
        self.spacing_mm = float(spacing_mm)
        self.config: dict[str, Any] = {
            "widths": [int(w) for w in widths],
            "blocks": [int(b) for b in blocks],
            "fine_channels": int(fine_channels),
            "coarse_channels": int(coarse_channels),
            "spacing_mm": float(spacing_mm),
            "fine_stride": self.fine_stride,
            "coarse_stride": self.coarse_stride,
            "multiple": self.multiple,
        }
        dimension = self.dimension
        convolution = _CONVOLUTION[dimension]
        self.stem = ConvNorm(2**dimension, widths[0], dimension=dimension)
        self.stages = nn.ModuleList()
        for level in range(4):
            stage: list[nn.Module] = []
            if level:
                stage.append(ConvNorm(widths[level - 1], widths[level], kernel=2, stride=2, dimension=dimension))
            stage += [ResidualBlock(widths[level], dimension) for _ in range(blocks[level])]
            self.stages.append(nn.Sequential(*stage))
        # Top-down path: a learned 2x2x2 deconvolution brings each level up to the next finer one, which it is added to.
        deconvolution = _DECONVOLUTION[dimension]
        self.up = nn.ModuleList([deconvolution(widths[k + 1], widths[k], 2, 2) for k in range(3)])
        self.merge = nn.ModuleList([ConvNorm(widths[k], widths[k], dimension=dimension) for k in (1, 2)])
        self.fine_head = nn.Sequential(
            ConvNorm(widths[0], fine_channels, dimension=dimension), convolution(fine_channels, fine_channels, 1)
        )
        self.coarse_head = nn.Sequential(
            ConvNorm(widths[2], widths[2], dimension=dimension), convolution(widths[2], coarse_channels, 1)
        )

    @property
    def multiples(self) -> tuple[int, ...]:
        """What input sizes (z, y, x) must be multiples of."""
        return (1,) * (3 - self.dimension) + (self.multiple,) * self.dimension

    def channels_last(self) -> SAMCompact:
        """This network in the memory layout that it runs fastest in."""
        self.to(memory_format=_MEMORY[self.dimension])  # type: ignore[call-overload]
        return self

    @staticmethod
    def feature_center_offset(stride: int) -> float:
        """Input voxel of feature voxel 0 of a head with this stride; voxel ``i`` sits at ``stride * i`` plus this."""
        return (stride - 1) / 2

    def raw_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Preprocessed (B, 1, D, H, W) -> fine (B, Cf, D/2, ...) and coarse (B, Cc, D/8, ...), not normalized."""
        if x.ndim != 5 or x.shape[1] != 1 or any(n % self.multiple for n in x.shape[2:]):
            raise ValueError(
                f"input must be (B, 1, D, H, W) with sizes that are multiples of {self.multiple}, not {tuple(x.shape)}"
            )
        return self.pyramid(x)

    def pyramid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of an input of this network's dimension, (B, 1, D, H, W) or (B, 1, H, W)."""
        x = self.stem(space_to_depth(x).contiguous(memory_format=_MEMORY[self.dimension]))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        top = self.merge[1](levels[2] + self.up[2](levels[3]))
        middle = self.merge[0](levels[1] + self.up[1](top))
        fine = self.fine_head(levels[0] + self.up[0](middle))
        return fine, self.coarse_head(top)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 1, D, H, W) from :func:`preprocess` -> ``fine`` and ``coarse`` maps of unit vectors (float32)."""
        fine, coarse = self.raw_features(x)
        return {"fine": F.normalize(fine.float(), dim=1), "coarse": F.normalize(coarse.float(), dim=1)}
