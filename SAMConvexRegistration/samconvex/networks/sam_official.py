"""The authors' 3D SAM and UAE networks, so that their published checkpoints load (Yan et al., TMI 2022; UAE, 2023).

An anisotropic 3D ResNet-18 with a fine feature pyramid at stride 2 and a coarse head at stride 4 (z) and 16 (y, x). UAE
adds a second pyramid, the semantic head. Module names equal the checkpoint's keys. Written from the published
description.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HU_LOWER, HU_UPPER = -1024.0, 3071.0
EMBEDDING_CHANNELS = 128


def preprocess_ct(hu: Tensor) -> Tensor:
    """Hounsfield units -> network input: [-1024, 3071] HU to [0, 255], minus 50."""
    return (hu.float().clamp(HU_LOWER, HU_UPPER) - HU_LOWER) * (255.0 / (HU_UPPER - HU_LOWER)) - 50.0


def preprocess_mr(values: Tensor, lower: float, upper: float) -> Tensor:
    """MR intensities -> network input: the range (0.2 to 99.8 percentile) to [0, 255], minus 50."""
    return (values.float().clamp(lower, upper) - lower) * (255.0 / max(upper - lower, 1e-6)) - 50.0


class _ConvNorm(nn.Module):
    """``conv`` without bias and ``bn``; the activation stays with the caller."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm3d(outputs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class _Conv(nn.Module):
    """``conv`` with bias, as the pyramids use it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _BasicBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], downsample: bool
    ) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inputs, outputs, kernel, stride)
        self.conv2 = _ConvNorm(outputs, outputs, kernel)
        self.downsample = _ConvNorm(inputs, outputs, (1, 1, 1), stride) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)) + shortcut, inplace=True)


def _layer(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(
        _BasicBlock(inputs, outputs, kernel, stride, True),
        _BasicBlock(outputs, outputs, kernel, (1, 1, 1), False),
    )


class _Backbone(nn.Module):
    """ResNet-18: (B, 1, D, H, W) -> four maps at strides (2,2,2), (2,4,4), (2,8,8), (4,16,16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(1, 64, (3, 7, 7))
        self.layer1 = _layer(64, 64, (1, 3, 3), (1, 2, 2))
        self.layer2 = _layer(64, 128, (1, 3, 3), (1, 2, 2))
        self.layer3 = _layer(128, 256, (3, 3, 3), (1, 2, 2))
        self.layer4 = _layer(256, 512, (3, 3, 3), (2, 2, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.conv1(x), inplace=True)
        first = F.max_pool3d(self.layer1(x), (2, 1, 1))
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]


class _Pyramid(nn.Module):
    """Top-down feature pyramid that returns its finest level, (B, 128, ...)."""

    def __init__(self, inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList([_Conv(n, EMBEDDING_CHANNELS, 1) for n in inputs])
        self.fpn_convs = nn.ModuleList([_Conv(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3)])

    def forward(self, levels: list[Tensor]) -> Tensor:
        top = self.lateral_convs[-1](levels[-1])
        for number in range(len(levels) - 2, -1, -1):
            side = self.lateral_convs[number](levels[number])
            top = side + F.interpolate(top, size=side.shape[2:], mode="nearest")
        return self.fpn_convs[0](top)


class SAMOfficial(nn.Module):
    """SAM of the authors; with ``semantic=True`` their UAE.

    Strides are x, y, z. Inputs are padded to :attr:`multiple`, so that feature voxel ``i`` stands for input voxel
    ``stride * i + (stride - 1) / 2`` on every axis.
    """

    fine_stride = (2, 2, 2)
    coarse_stride = (16, 16, 4)
    multiple = (16, 16, 4)
    spacing_mm = 2.0

    def __init__(self, semantic: bool = False) -> None:
        super().__init__()
        self.backbone = _Backbone()
        self.neck = _Pyramid((64, 128, 256))
        self.read_out_head = _Pyramid((512,))
        self.semantic_head = _Pyramid((64, 128, 256)) if semantic else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 1, D, H, W) preprocessed -> unit-length ``fine`` and ``coarse`` maps, and ``semantic`` with UAE."""
        levels = self.backbone(x)
        maps = {"fine": self.neck(levels[:3]), "coarse": self.read_out_head(levels[3:])}
        if self.semantic_head is not None:
            maps["semantic"] = self.semantic_head(levels[:3])
        return {name: F.normalize(value.float(), dim=1) for name, value in maps.items()}


def checkpoint_state(loaded: object) -> dict[str, Tensor] | None:
    """The tensors of an official checkpoint (``{"state_dict": ...}`` or bare, ``module.`` prefix removed), or None."""
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(torch.is_tensor(v) for v in loaded.values()):
        return None
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def from_state(state: dict[str, Tensor]) -> SAMOfficial:
    """SAM or UAE, whichever the keys tell, with these weights, in evaluation mode.

    Raises:
        ValueError: keys or shapes of another network.
    """
    if "backbone.conv1.conv.weight" not in state:
        raise ValueError("not a SAM or UAE checkpoint")
    # Without storage until the checkpoint's tensors take their places: no second random initialization.
    with torch.device("meta"):
        network = SAMOfficial(semantic=any(key.startswith("semantic_head.") for key in state))
    expected = network.state_dict()
    # Training heads and loss buffers of the published files are not needed for inference.
    kept = {key: value for key, value in state.items() if key in expected}
    missing = [key for key in expected if key not in kept and not key.endswith("num_batches_tracked")]
    wrong = [key for key in kept if kept[key].shape != expected[key].shape]
    if missing or wrong:
        example = (missing + wrong)[0]
        raise ValueError(f"{len(missing)} tensors missing, {len(wrong)} of another shape, such as {example}")
    counters = {key: torch.tensor(0) for key in expected if key not in kept}
    floats = {key: value.float() if value.is_floating_point() else value for key, value in kept.items()}
    network.load_state_dict({**floats, **counters}, assign=True)
    return network.eval()
