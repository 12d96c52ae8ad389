"""Whether a CT shows its patient the right way round: a small network whose answer changes sign under a mirror.

It sees a window of the body at 12 mm and answers with f(window) - f(mirrored window): what a body has on both sides
cancels, and what is left is the heart, the liver, the arch of the aorta, the stomach. Nothing else can answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CHECKPOINT_FORMAT = "samconvex-sides"
CHECKPOINT_VERSION = 1

# Of soft tissue and of lung; training images of abdomens hold nothing beyond the first but two values of gas.
_TISSUE_HU, _LUNG_HU = (-125.0, 275.0), (-1000.0, -125.0)


def prepare(hu: Tensor) -> Tensor:
    """Hounsfield units (B, 1, D, H, W) -> network input (B, 2, D, H, W): soft tissue and lung, each in [-1, 1]."""
    parts = [(hu.clamp(low, high) - (low + high) / 2) * (2 / (high - low)) for low, high in (_TISSUE_HU, _LUNG_HU)]
    return torch.cat(parts, 1)


class SidesNet(nn.Module):
    """One number for a window of a CT: above zero where left and right are where they belong, below where exchanged.

    Args:
        widths: channels at 24, 48 and 96 mm.
        hidden: units of the last layer.
        dropout: share of its inputs that training leaves out.
        shape: voxels of the window (z, y, x), multiples of 8.
        spacing_mm: isotropic voxel size.
    """

    multiple = 8

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = (16, 32, 48),
        hidden: int = 32,
        dropout: float = 0.3,
        shape: tuple[int, int, int] | list[int] = (16, 24, 32),
        spacing_mm: float = 12.0,
    ) -> None:
        super().__init__()
        if len(widths) != 3 or len(shape) != 3 or any(n % self.multiple for n in shape):
            raise ValueError("SidesNet needs three widths and a window of multiples of 8 voxels")
        self.shape = tuple(int(n) for n in shape)
        self.spacing_mm = float(spacing_mm)
        self.config: dict[str, Any] = {
            "widths": [int(w) for w in widths],
            "hidden": int(hidden),
            "dropout": float(dropout),
            "shape": list(self.shape),
            "spacing_mm": float(spacing_mm),
        }
        channels = [2, *widths]
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)))
        places = 1
        for n in self.shape:
            places *= n // self.multiple
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * places, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, window: Tensor) -> Tensor:
        """(B, 2, D, H, W) from :func:`prepare`, its last axis towards the patient's left -> (B,) float32."""
        if tuple(window.shape[1:]) != (2, *self.shape):
            raise ValueError(f"input must be (B, 2, {', '.join(map(str, self.shape))}), not {tuple(window.shape)}")
        both = self.head(self.stages(torch.cat([window, window.flip(-1)])))[:, 0].float()
        straight, mirrored = both.chunk(2)
        return straight - mirrored


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, 2, 1),
        nn.GroupNorm(4, outputs),
        nn.SiLU(),
        nn.Conv3d(outputs, outputs, 3, 1, 1),
        nn.GroupNorm(4, outputs),
        nn.SiLU(),
    )
