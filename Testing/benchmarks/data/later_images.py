"""What sets a follow-up apart from its baseline, the lesions aside: contrast phase, kernel, slices, posture, extent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from samconvex.space.grid import Grid
from samconvex.space.transforms import AffineTransform
from samconvex.synthetic.warps import SmoothWarp


@dataclass(frozen=True)
class Condition:
    """How a follow-up was taken.

    Attributes:
        name: for records and tables. cut: 35 to 60 % of the extent along the body are missing.
        phase: another contrast phase. kernel: "", "sharp" or "soft". slice_mm: thickness, 0 about the baseline's.
        turn_deg: (least, most) further turn about the body's axis.
    """

    name: str
    cut: bool = False
    phase: bool = False
    kernel: str = ""
    slice_mm: float = 0.0
    turn_deg: tuple[float, float] = (0.0, 0.0)


PLAIN, CUT = Condition("plain"), Condition("cut", cut=True)
HARD = (
    Condition("contrast phase, soft kernel", phase=True, kernel="soft"),
    Condition("5 mm slices, turned", slice_mm=5.0, turn_deg=(10.0, 30.0)),
    Condition("sharp kernel, part cut away", kernel="sharp", cut=True),
)


def posture(grid: Grid, random: np.random.Generator, condition: Condition) -> SmoothWarp:
    """Map of follow-up to baseline points: a turn, a shift, and smooth bumps of up to about a centimeter."""
    low, high = grid.corners().min(0), grid.corners().max(0)
    count = 8
    directions = random.normal(size=(count, 3))
    directions *= random.uniform(4, 12, (count, 1)) / np.linalg.norm(directions, axis=1, keepdims=True)
    widths = np.repeat(random.uniform(40, 80, (count, 1)), 3, 1)
    x, y, z = np.radians(random.uniform(-5, 5, 3))
    left, _, right = np.linalg.svd(np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]]))
    turn = left @ right
    if condition.turn_deg[1]:
        angle = np.radians(random.choice([-1, 1]) * random.uniform(*condition.turn_deg))
        more = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        turn = more @ turn
    change = AffineTransform.about((low + high) / 2, turn, random.uniform(-12, 12, 3))
    return SmoothWarp.within_slope(random.uniform(low, high, (count, 3)), widths, directions, change)


def later_grid(grid: Grid, random: np.random.Generator, condition: Condition) -> tuple[Grid, int]:
    """Another spacing over the same extent, and how many slices of it are averaged into one of the image."""
    spacing = np.asarray(grid.spacing) * random.uniform(0.9, 1.25, 3)
    spacing[2] *= random.choice([1.0, 1.5]) if spacing[2] < 3 else 1.0
    parts = 1
    if condition.slice_mm:
        parts = max(1, int(round(condition.slice_mm / 1.7)))
        spacing[2] = condition.slice_mm / parts
    later = grid.with_spacing(spacing.tolist())
    count, first = later.size[2], 0
    if condition.cut:
        count = max(16, int(round(later.size[2] * random.uniform(0.4, 0.65))))
        first = int(random.choice([0, later.size[2] - count]))
    count -= count % parts
    return later.cropped((0, 0, first), (later.size[0], later.size[1], count)), parts


def averaged_slices(values: torch.Tensor, grid: Grid, parts: int) -> tuple[torch.Tensor, Grid]:
    """(1, 1, D, H, W) with every ``parts`` slices averaged into one, and its grid."""
    if parts == 1:
        return values, grid
    depth = values.shape[2] // parts
    thick = values.reshape(1, 1, depth, parts, *values.shape[3:]).mean(3)
    return thick, grid.strided((1, 1, parts))


def another_phase(values: torch.Tensor, grid: Grid, random: np.random.Generator) -> torch.Tensor:
    """Soft tissue brighter or darker by up to 40 HU, differently from place to place, vessels most."""
    strength = float(random.choice([-1, 1]) * random.uniform(15, 40))
    coarse = torch.as_tensor(random.uniform(0.4, 1.6, (1, 1, 4, 4, 4)), dtype=torch.float32)
    places = torch.nn.functional.interpolate(coarse, values.shape[2:], mode="trilinear", align_corners=True)
    tissue = (values / 40).clamp(0, 1) * ((300 - values) / 120).clamp(0, 1)
    vessels = 1 + ((values - 100) / 60).clamp(0, 1)
    return values + strength * places * tissue * vessels


def through_kernel(values: torch.Tensor, kernel: str, random: np.random.Generator) -> torch.Tensor:
    """In-plane sharpening or smoothing, and the noise that comes with it."""
    noise = random.uniform(8, 20)
    if kernel:
        image = sitk.GetImageFromArray(values[0, 0].numpy())
        smooth = torch.from_numpy(
            sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, (0.64, 0.64, 0.0), useImageSpacing=False))
        )[None, None]
        values = smooth if kernel == "soft" else values + 0.8 * (values - smooth)
        noise = random.uniform(4, 8) if kernel == "soft" else random.uniform(22, 32)
    return values + noise * torch.as_tensor(random.normal(size=tuple(values.shape)), dtype=torch.float32)
