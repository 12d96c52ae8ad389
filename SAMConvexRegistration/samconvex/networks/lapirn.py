"""LapIRN: a displacement field in one pass, coarse to fine (Mok & Chung, MICCAI 2020, Laplacian pyramid networks).

Three levels of the same shape see both images at a quarter, a half and the whole of their resolution. Each corrects the
field of the one before, whose last maps it also continues. Built so that the authors' published checkpoints load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import Conv3d

CHECKPOINT_FORMAT = "samconvex-lapirn"
CHECKPOINT_VERSION = 1

SLOPE = 0.2
BLOCKS = 5
# Halvings of the time step when velocities are integrated.
SQUARINGS = 7
# The largest correction of a level, in units of half the image.
RANGE = 0.4
# Arrays as the network was trained on them: this package's (z, y, x of LPS), or x, y, z of RAS as nibabel reads them.
AXES = ("zyx-lps", "xyz-ras")
# Names of a level's parts in the authors' checkpoints.
_THEIRS = {"encoder": "input_encoder_lvl1", "down": "down_conv", "up": "up", "output": "output_lvl1"}
_STEM = "model_lvl2.model_lvl1.input_encoder_lvl1.0.weight"
_PREFIXES = ("model_lvl2.model_lvl1.", "model_lvl2.", "")


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    return Conv3d(inputs, outputs, 3, stride, 1, bias=False)


class _Block(nn.Module):
    """Pre-activation residual block, and the activation behind it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.leaky_relu(x, SLOPE))
        return F.leaky_relu(self.conv2(F.leaky_relu(inner, SLOPE)) + x, SLOPE)


class _Level(nn.Module):
    """Images (and the field so far) -> correction (B, 3, ...) and maps that the next level continues."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_conv(inputs, channels), nn.LeakyReLU(SLOPE), _conv(channels, channels))
        self.down = _conv(channels, channels, 2)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(BLOCKS)))
        self.up = nn.ConvTranspose3d(channels, channels, 2, 2, bias=False)
        self.output = nn.Sequential(
            _conv(2 * channels, channels), nn.LeakyReLU(SLOPE), _conv(channels, 3), nn.Softsign()
        )

    def forward(self, images: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = self.encoder(images)
        inner = self.down(seen)
        inner = self.up(self.blocks(inner if embedding is None else inner + embedding))
        # Places in an image take all digits, whatever the convolutions are computed in.
        return self.output(torch.cat([inner, seen], 1)).float() * RANGE, inner


@dataclass(frozen=True)
class LevelField:
    """What a level says, (B, 3, D, H, W) in normalized coordinates ([-1, 1] along x, y, z).

    Attributes:
        displacement: of the moving image's samples.
        velocity: what was integrated to it, or the displacement itself in a displacement network; counted in the
            network's ``shape``.
    """

    displacement: Tensor
    velocity: Tensor


class LapIRN(nn.Module):
    """Displacement of the moving image at the voxels of the fixed one.

    Args:
        diffeomorphic: levels add up velocities that are integrated, instead of displacements.
        start_channels: the levels have four times as many; the published networks have 7.
        axes: one of :data:`AXES`; :mod:`samconvex.deform.feed_forward` turns images accordingly.
        spacing_mm: voxel size of the training images.
        shape: (z, y, x) voxels of the training images, see :func:`units_of`; None, those of the images at hand.
    """

    multiple = 8
    features = ""

    def __init__(
        self,
        diffeomorphic: bool = False,
        start_channels: int = 7,
        axes: str = AXES[0],
        spacing_mm: float = 2.0,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if axes not in AXES:
            raise ValueError(f"axes must be one of {AXES}")
        self.config: dict[str, Any] = {
            "diffeomorphic": diffeomorphic,
            "start_channels": start_channels,
            "axes": axes,
            "spacing_mm": spacing_mm,
            "shape": shape,
        }
        self.diffeomorphic, self.axes, self.spacing_mm, self.shape = diffeomorphic, axes, spacing_mm, shape
        self.levels = nn.ModuleList([_Level(inputs, 4 * start_channels) for inputs in (2, 5, 5)])

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Two images (B, 1, D, H, W) in [0, 1], sizes multiples of 8 -> (B, 3, D, H, W), see :class:`LevelField`."""
        return self.fields(moving, fixed)[-1].displacement

    def fields(self, moving: Tensor, fixed: Tensor, levels: int = 3) -> list[LevelField]:
        """The fields of the first ``levels`` levels, at a quarter, a half and the whole of the resolution."""
        if moving.shape != fixed.shape or any(n % self.multiple for n in fixed.shape[2:]):
            raise ValueError(f"images must have one shape, multiples of {self.multiple}, not {tuple(fixed.shape)}")
        images = pyramid(torch.cat([moving, fixed], 1))
        units = units_of(self.shape, fixed)
        found: list[LevelField] = []
        embedding = None
        for level, pair in zip(self.levels[:levels], images, strict=False):
            if not found:
                velocity, embedding = level(pair, None)
            else:
                before = LevelField(_finer(found[-1].displacement), _finer(found[-1].velocity))
                seen = torch.cat([warped(pair[:, :1], before.displacement), pair[:, 1:], before.velocity], 1)
                correction, embedding = level(seen, embedding)
                velocity = correction + before.velocity
            own = velocity * units
            found.append(LevelField(integrated(own) if self.diffeomorphic else own, velocity))
        return found


def pyramid(images: Tensor) -> list[Tensor]:
    """(B, C, D, H, W) at a quarter, a half and the whole of its resolution."""
    half = F.avg_pool3d(images, 3, 2, 1, count_include_pad=False)
    return [F.avg_pool3d(half, 3, 2, 1, count_include_pad=False), half, images]


def units_of(shape: tuple[int, int, int] | None, image: Tensor) -> Tensor:
    """Normalized units of a box of ``shape`` (z, y, x) voxels in those of ``image``: (1, 3, 1, 1, 1) factors, x, y, z.

    A network learns what a shift by some voxels looks like and says it in units of half its training images; in an
    image of another size the same voxels are another share of it. ``shape`` None is the size of ``image``.
    """
    own = torch.tensor(image.shape[:1:-1], dtype=torch.float32)
    learned = own if shape is None else torch.tensor(shape[::-1], dtype=torch.float32)
    return ((learned - 1) / (own - 1)).view(1, 3, 1, 1, 1).to(image.device)


def _finer(field: Tensor) -> Tensor:
    return F.interpolate(field, scale_factor=2, mode="trilinear", align_corners=False)


def identity(like: Tensor) -> Tensor:
    """Normalized coordinates (1, D, H, W, 3) of the voxels of a (B, C, D, H, W) tensor."""
    # Sizes of 1 have no extent: their only voxel lies at 0.
    axes = [torch.linspace(-1, 1, n, device=like.device, dtype=like.dtype) * (n > 1) for n in like.shape[2:]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], -1)[None]


def warped(values: Tensor, displacement: Tensor) -> Tensor:
    """``values`` pulled through a normalized displacement of the same size, edges repeated."""
    places = identity(displacement) + displacement.permute(0, 2, 3, 4, 1)
    return F.grid_sample(values, places, mode="bilinear", padding_mode="border", align_corners=True)


def integrated(velocity: Tensor) -> Tensor:
    """Displacement of a stationary velocity field after unit time, by scaling and squaring."""
    flow = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        flow = flow + warped(flow, flow)
    return flow


def is_published(state: dict[str, Tensor]) -> bool:
    """Tensors by name are those of the authors' checkpoints."""
    return _STEM in state


def from_published(state: dict[str, Tensor], diffeomorphic: bool) -> dict[str, Any]:
    """A checkpoint of this package from the tensors of the authors'.

    Args:
        diffeomorphic: their two networks have the same tensors, and only the file's name tells them apart.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        number = next(k for k, prefix in enumerate(_PREFIXES) if key.startswith(prefix))
        rest = key.removeprefix(_PREFIXES[number])
        # Their activations count as modules between the blocks.
        rest = re.sub(r"^resblock_group_lvl1\.(\d+)", lambda found: f"blocks.{int(found[1]) // 2}", rest)
        for name, theirs in _THEIRS.items():
            rest = re.sub(rf"^{theirs}\b", name, rest)
        ours[f"levels.{number}.{rest}"] = value
    config = {
        "diffeomorphic": diffeomorphic,
        "start_channels": int(state[_STEM].shape[0]) // 4,
        # Their brains were read by nibabel, at 1 mm. Of a known warp of 14.0 mm 1.24 mm are left so, and 1.44 mm where
        # the arrays are taken for this package's.
        "axes": AXES[1],
        "spacing_mm": 1.0,
    }
    return {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "config": config, "state_dict": ours}
