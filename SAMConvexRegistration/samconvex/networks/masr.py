"""MASR-Net: an encoder-decoder whose feature maps are compared with themselves, not with each other.

Mok et al., CVPR 2024, "Modality-agnostic structural image representation learning". Intensities become feature maps;
deep neighborhood self-similarity (DNS) describes every voxel by how alike its neighbors are in these maps, which
survives a change of contrast; a small head squeezes the similarities to a descriptor.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHECKPOINT_FORMAT = "samconvex-masr"
CHECKPOINT_VERSION = 1

# The six face neighbors in z, y, x, and their 12 pairs at distance sqrt(2); the center voxel is never compared.
_NEIGHBORS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
PAIRS = tuple(
    (_NEIGHBORS[a], _NEIGHBORS[b])
    for a, b in combinations(range(6), 2)
    if sum((p - q) ** 2 for p, q in zip(_NEIGHBORS[a], _NEIGHBORS[b], strict=True)) == 2
)
# Radii of the two neighborhood layouts, voxels.
LAYOUTS = (1, 2)
SLOPE = 0.2
# Gaussian over the descriptors.
SIGMA, GAUSS_RADIUS = 1.0, 2
# Added to the noise estimate: differences far below it are noise everywhere.
FLOOR = 1e-5
# What is wide at full resolution is made in slabs, whose 24 maps and convolutions stay within about 300 MB.
SLAB_VOXELS = 750_000
# Voxels around a slab that its descriptors depend on: layout, two convolutions, Gaussian.
HALO = max(LAYOUTS) + 2 + GAUSS_RADIUS


class _BlurPool(nn.Module):
    """Binomial blur and stride 2, which shifts the result by no more than half a voxel: blocks of two are averaged."""

    def forward(self, x: Tensor) -> Tensor:
        # (1, 3, 3, 1) / 8 with stride 2 is symmetric about the middle of each block of two.
        for axis in (2, 3, 4):
            edge = [0] * 6
            edge[2 * (4 - axis)] = edge[2 * (4 - axis) + 1] = 1
            wide = F.pad(x, edge, mode="replicate")
            count = x.shape[axis] // 2
            parts = [wide.narrow(axis, k, 2 * count - 1) for k in range(4)]
            strided = [part.index_select(axis, torch.arange(0, 2 * count, 2, device=x.device)) for part in parts]
            x = (strided[0] + 3 * strided[1] + 3 * strided[2] + strided[3]) / 8
        return x


def _conv(inputs: int, outputs: int) -> nn.Conv3d:
    # Zeros around the image would tell each voxel where it lies in it, which no other image shares.
    conv = nn.Conv3d(inputs, outputs, 3, padding=1, padding_mode="replicate")
    # torch's own initialization lets the signal fade with depth.
    nn.init.kaiming_normal_(conv.weight, SLOPE)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _conv(inputs, outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
        _conv(outputs, outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


class MASRNet(nn.Module):
    """Unit descriptors of every voxel, comparable between modalities by their cosine.

    Args:
        widths: channels of the four resolutions, fine to coarse (strides 1, 2, 4, 8).
        maps: C_h, feature maps that self-similarity is computed in.
        channels: C_d, descriptor length.
        layouts: neighborhood radii; (1, 2) is the paper's dual layout, (1,) its single one.
        learned: compare the image itself instead of feature maps if False (ablation: MIND-like, no encoder-decoder).
        smoothed: Gaussian over the descriptors.
        similarity: descriptors from the feature maps themselves if False (ablation: no self-similarity).
    """

    multiple = 8

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = (8, 16, 32, 32),
        maps: int = 4,
        channels: int = 24,
        layouts: tuple[int, ...] | list[int] = LAYOUTS,
        learned: bool = True,
        smoothed: bool = True,
        similarity: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError("MASRNet needs four widths")
        if not layouts or any(radius not in LAYOUTS for radius in layouts):
            raise ValueError(f"layouts must be among {LAYOUTS}")
        self.config: dict[str, Any] = {
            "widths": [int(w) for w in widths],
            "maps": int(maps),
            "channels": int(channels),
            "layouts": [int(radius) for radius in layouts],
            "learned": bool(learned),
            "smoothed": bool(smoothed),
            "similarity": bool(similarity),
        }
        self.layouts, self.smoothed = tuple(int(radius) for radius in layouts), smoothed
        maps = maps if learned else 1
        similarities = len(PAIRS) * len(self.layouts) if similarity else maps
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        if learned:
            for k, width in enumerate(widths):
                self.encoder.append(_block(1 if k == 0 else widths[k - 1], width))
            for k in range(3):
                self.decoder.append(_block(widths[k] + widths[k + 1], widths[k]))
            self.out = _conv(widths[0], maps)
        self.down = _BlurPool()
        # One linear map over the C_h feature maps for each pair of neighbors.
        self.squeeze = nn.Parameter(torch.randn(similarities, maps) / maps**0.5) if similarity else None
        self.head = nn.Sequential(
            _conv(similarities, channels), nn.LeakyReLU(SLOPE, inplace=True), _conv(channels, channels)
        )

    def maps(self, image: Tensor) -> Tensor:
        """(B, 1, D, H, W) in [0, 1] with sizes that are multiples of 8 -> (B, C_h, D, H, W)."""
        if image.ndim != 5 or image.shape[1] != 1 or any(n % self.multiple for n in image.shape[2:]):
            raise ValueError(f"input must be (B, 1, D, H, W), multiples of {self.multiple}, not {tuple(image.shape)}")
        if not len(self.encoder):
            return image
        levels = []
        x = image
        for number, block in enumerate(self.encoder):
            x = self._first(x) if number == 0 else block(self.down(x))
            levels.append(x)
        for k in (2, 1):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = self.decoder[k](torch.cat([x, levels[k]], 1))
        return self._last(x, levels[0])

    def _first(self, image: Tensor) -> Tensor:
        """The encoder's block at full resolution, slab by slab: two convolutions reach two voxels."""
        parts = []
        for first, last, low, high in _slabs(image, 2):
            parts.append(self.encoder[0](image[:, :, low:high])[:, :, first - low : last - low])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def _last(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """The decoder's block at full resolution and the output, slab by slab.

        Interpolation reaches one voxel of ``fine`` and three convolutions three, less than three of ``coarse``.
        """
        parts = []
        for first, last, low, high in _slabs(coarse, 3, factor=2):
            x = F.interpolate(coarse[:, :, low:high], scale_factor=2, mode="trilinear", align_corners=False)
            x = self.out(self.decoder[0](torch.cat([x, fine[:, :, 2 * low : 2 * high]], 1)))
            parts.append(x[:, :, 2 * (first - low) : 2 * (last - low)])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def similarities(self, maps: Tensor) -> Tensor:
        """Squeezed self-similarities, (B, 24, D, H, W) of maps (B, C_h, D, H, W).

        The C_h x 24 similarities are never held together: two passes over the pairs, the first for the noise estimate,
        the second squeezes each pair as it is made.
        """
        reach = max(self.layouts)
        padded = F.pad(maps, (reach,) * 6, mode="replicate")
        size = maps.shape[2:]

        def shifted(neighbor: tuple[int, int, int], radius: int) -> Tensor:
            z, y, x = (reach + radius * step for step in neighbor)
            return padded[:, :, z : z + size[0], y : y + size[1], x : x + size[2]]

        squeezed = []
        for number, radius in enumerate(self.layouts):
            variance = torch.zeros_like(maps)
            for first, second in PAIRS:
                variance = variance + (shifted(first, radius) - shifted(second, radius)).square()
            precision = 1 / (variance / len(PAIRS) + FLOOR)
            for pair, (first, second) in enumerate(PAIRS):
                distance = (shifted(first, radius) - shifted(second, radius)).square()
                assert self.squeeze is not None
                weight = self.squeeze[number * len(PAIRS) + pair].to(maps.dtype)
                squeezed.append(torch.einsum("bcdhw,c->bdhw", torch.exp(-distance * precision), weight))
        return torch.stack(squeezed, 1)

    def describe(self, maps: Tensor) -> Tensor:
        """Unit descriptors (B, C_d, D, H, W) of feature maps; a slab needs :data:`HALO` voxels around it.

        May run under autocast, the maps may not: neighbors differ by less than bfloat16 resolves.
        """
        values = maps if self.squeeze is None else self.similarities(maps)
        values = self.head(values.contiguous(memory_format=torch.channels_last_3d)).float().contiguous()
        if self.smoothed:
            values = gaussian(values)
        return F.normalize(values, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, D, H, W) in [0, 1] -> (B, C_d, D, H, W) unit vectors."""
        return self.describe(self.maps(image))


def _slabs(values: Tensor, halo: int, factor: int = 1) -> list[tuple[int, int, int, int]]:
    """(first, last, low, high) along z: slabs of SLAB_VOXELS, once made ``factor`` times finer, and with a halo."""
    depth, height, width = values.shape[2:]
    step = max(1, SLAB_VOXELS // (height * width * factor**3))
    slabs = []
    for first in range(0, depth, step):
        last = min(first + step, depth)
        slabs.append((first, last, max(first - halo, 0), min(last + halo, depth)))
    return slabs


def gaussian(values: Tensor) -> Tensor:
    """Each channel of (B, C, D, H, W) smoothed by a Gaussian of one voxel, edges repeated."""
    along_z, along_y, along_x = (_smoothing(n, values) for n in values.shape[2:])
    with torch.autocast(values.device.type, enabled=False):
        smoothed = along_y @ (values @ along_x.T)
        return (along_z @ smoothed.flatten(3)).view(values.shape)


def _smoothing(count: int, like: Tensor) -> Tensor:
    """(count, count) matrix of the Gaussian along an axis; its product is faster than a sum of shifted maps."""
    steps = torch.arange(-GAUSS_RADIUS, GAUSS_RADIUS + 1, device=like.device)
    bell = torch.exp(-0.5 * (steps / SIGMA).square()).to(like)
    places = torch.arange(count, device=like.device)[:, None]
    matrix = torch.zeros(count, count, device=like.device, dtype=like.dtype)
    return matrix.scatter_add_(1, (places + steps).clamp(0, count - 1), (bell / bell.sum()).expand(count, -1))
