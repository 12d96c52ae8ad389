"""What a lesion looks like: a scaled contour fitted to the image by contrast, and a new contour suggested from it.

The fit compares the inside of a shifted and scaled contour with a shell around it. For two equally weighted classes the
correlation of image and contour is |contrast| / (2 standard deviations), so brightness and contrast of the image do not
matter. It tells whether something with the lesion's contrast is there, where and how large; the contour then follows
the half-way level between lesion and surroundings near the fitted shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from .geometry import Grid
from .sampling import sample
from .volume import Volume, resample

SHELL_MM = 3.0
SCALES = tuple(float(s) for s in np.geomspace(0.35, 2.4, 15))


@dataclass(frozen=True)
class Fit:
    """A contour fitted to an image.

    Attributes:
        correlation: of image and contour in the neighborhood, in [0, 1]; 0 without any contrast of the wanted sign.
        contrast: inside minus surroundings, in the image's units.
        inside, outside: the two means.
        shift: (3,) LPS mm by which the contour moved.
        scale: factor on its lengths.
        soft: the fitted contour, values in [0, 1], on the grid of the image.
    """

    correlation: float
    contrast: float
    inside: float
    outside: float
    shift: np.ndarray
    scale: float
    soft: torch.Tensor


def neighborhood(contour: Volume, reach_mm: float) -> Grid:
    """Cubic identity-direction grid around a contour, fine enough for its size."""
    where = (contour.tensor[0, 0] > 0.5).nonzero().flip(1).cpu().numpy()
    points = contour.grid.voxels_to_points(where)
    extent = float(np.max(points.max(0) - points.min(0))) + max(contour.grid.spacing)
    spacing = float(np.clip(extent / 12, 0.9, 2.0))
    return Grid.covering(np.stack([points.min(0), points.max(0)]), spacing, margin_mm=reach_mm)


def fit_contour(
    image: Volume,
    contour: Volume,
    *,
    sign: float = 0.0,
    scales: Sequence[float] = SCALES,
    shift_mm: float = 8.0,
    scale_prior: float = 0.12,
    shift_prior_mm: float = 12.0,
) -> Fit:
    """Shift and scale of ``contour`` (on the image's grid, values in [0, 1]) that contrast best with a shell around it.

    Args:
        sign: of the wanted contrast; 0 takes the stronger one.
        shift_mm: how far the contour may move.
        scale_prior: cost of a factor e in scale; shift_prior_mm: shift that costs as much as a correlation of 0.5.
    """
    grid = image.grid
    values = image.tensor[0, 0].double()
    reference = float(values.median())
    values = values - reference
    spectrum, square = torch.fft.rfftn(values), torch.fft.rfftn(values**2)
    middle = _center_of(contour)
    offsets = _offsets(grid)
    allowed = offsets.norm(dim=-1) <= shift_mm
    prior = 0.5 * (offsets.norm(dim=-1) / shift_prior_mm) ** 2
    best: tuple[float, float, tuple[float, ...], np.ndarray] | None = None
    for scale in scales:
        soft = scaled(contour, middle, scale)
        shell = shell_of(soft, grid, max(SHELL_MM, 0.4 * _radius(soft, grid)))
        if float(soft.sum()) < 1 or float(shell.sum()) < 1:
            continue
        means = []
        for weight in (soft, shell):
            kernel = torch.fft.rfftn((weight / weight.sum()).double()).conj()
            means += [torch.fft.irfftn(part * kernel, s=values.shape) for part in (spectrum, square)]
        inside, inside_square, outside, outside_square = means
        contrast = inside - outside
        variance = (inside_square + outside_square) / 2 - ((inside + outside) / 2) ** 2
        correlation = contrast / (2 * variance.clamp(min=1e-6).sqrt())
        correlation = correlation.abs() if sign == 0 else correlation * sign
        objective = correlation - prior - scale_prior * abs(np.log(scale))
        objective = objective.masked_fill(~allowed, -9.0)
        row = int(objective.argmax())
        value = float(objective.flatten()[row])
        if best is None or value > best[0]:
            numbers = tuple(float(m.flatten()[row]) for m in (correlation, inside, outside))
            best = (value, scale, numbers, offsets.view(-1, 3)[row].numpy().astype(float))
    if best is None:
        empty = torch.zeros(grid.shape)
        return Fit(0.0, 0.0, 0.0, 0.0, np.zeros(3), 1.0, empty)
    _, scale, (correlation_at, inside_at, outside_at), shift = best
    soft = scaled(contour, middle, scale, shift)
    return Fit(
        max(0.0, correlation_at), inside_at - outside_at, inside_at + reference, outside_at + reference, shift, scale,
        soft,
    )


def suggest_contour(image: Volume, fit: Fit) -> torch.Tensor:
    """(D, H, W) bool on the image's grid: the region near the fitted contour on the lesion's side of the contrast."""
    grid = image.grid
    spacing = grid.spacing[0]
    values = image.tensor[0, 0].float()
    shape = fit.soft > 0.5
    if not bool(shape.any()):
        shape = fit.soft >= fit.soft.max()
    distance = _signed_distance(shape, spacing)
    radius = max(_radius(shape.float(), grid), spacing)
    core = distance <= min(-0.35 * radius, float(distance.min()) + 0.5 * spacing)
    lesion = float(values[core].median())
    near = (distance > 1.0) & (distance < max(2 * SHELL_MM, 0.6 * radius))
    surroundings = values[near]
    # Tissue of the lesion's own brightness beside it says nothing about where the border is.
    other = surroundings[(surroundings - lesion) * np.sign(fit.contrast) < -0.4 * abs(fit.contrast)]
    if len(other) < 0.1 * len(surroundings):
        other = surroundings
    background = float(other.median())
    contrast = lesion - background
    if abs(contrast) < 1e-3:
        return shape
    noise = float((values[core] - lesion).abs().median()) * 1.48 / abs(contrast)
    smoothed = _smoothed(values, spacing, min(0.5 * radius, spacing * (0.4 + min(noise, 1.0))))
    level = (smoothed - background) / contrast
    # 0.5 in the lesion, falling to either side: as far below half-way as above one and a half.
    evidence = (0.5 - (level - 1).abs()).clamp(-0.5, 0.5)
    shape_term = (distance / (0.35 * radius + 1.5)).clamp(-1.5, 1.5)
    trust = 1 / (1 + (1.5 * noise) ** 2)
    inside = trust * evidence - (0.12 + 0.4 * (1 - trust)) * shape_term > 0
    return _main_part(inside, shape, spacing, radius)


def scaled(contour: Volume, middle: np.ndarray, scale: float, shift: np.ndarray | None = None) -> torch.Tensor:
    """(D, H, W) float: the contour scaled about ``middle`` (LPS mm), then shifted, on its own grid."""
    grid = contour.grid
    if scale == 1.0 and shift is None:
        return contour.tensor[0, 0].float()
    target = grid.voxel_centers(reference=middle if shift is None else middle + shift)
    return sample(contour.as_float(), grid, target / scale, reference=middle, fill=0.0)[0, 0]


def shell_of(soft: torch.Tensor, grid: Grid, width_mm: float) -> torch.Tensor:
    """(D, H, W) float: voxels within ``width_mm`` outside a contour, less what the contour covers."""
    shape = soft > 0.5 if bool((soft > 0.5).any()) else soft >= soft.max()
    distance = _signed_distance(shape, grid.spacing[0])
    # A gap of half a voxel: border voxels belong to both sides.
    ring = (distance <= width_mm + 0.5) & (distance > 0.5)
    return ring.float() * (1 - soft.clamp(0, 1))


def on_neighborhood(volume: Volume, grid: Grid, fill: float | None = None) -> Volume:
    """``volume`` resampled linearly onto a neighborhood's grid as float."""
    return resample(volume.with_tensor(volume.as_float()), grid, fill=volume.background if fill is None else fill)


def _center_of(contour: Volume) -> np.ndarray:
    weight = contour.tensor[0, 0].double()
    weight = weight / weight.sum().clamp(min=1e-9)
    voxel = [
        float((weight.sum([d for d in range(3) if d != 2 - axis]) * torch.arange(n)).sum())
        for axis, n in enumerate(contour.grid.size)
    ]
    return contour.grid.voxels_to_points(np.array([voxel]))[0]


def _offsets(grid: Grid) -> torch.Tensor:
    """(D, H, W, 3) shift, LPS mm, that each entry of a circular correlation stands for."""
    axes = []
    for count, spacing in zip(grid.size, grid.spacing, strict=True):
        index = torch.arange(count, dtype=torch.float64)
        axes.append(torch.where(index > count / 2, index - count, index) * spacing)
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([x, y, z], -1)


def _radius(soft: torch.Tensor, grid: Grid) -> float:
    """Radius of the ball of the same volume, mm."""
    return float((3 * float(soft.sum()) * float(np.prod(grid.spacing)) / (4 * np.pi)) ** (1 / 3))


def _signed_distance(shape: torch.Tensor, spacing: float) -> torch.Tensor:
    """(D, H, W) mm to the border of ``shape``, negative inside; the border runs between voxels."""
    image = sitk.GetImageFromArray(shape.to(torch.uint8).numpy())
    parts = []
    for mask in (image, sitk.Equal(image, 0)):
        squared = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False)
        parts.append(sitk.GetArrayFromImage(squared))
    # Each map counts to the nearest border voxel of its own side: the mean lies in between.
    return torch.from_numpy((parts[0] - parts[1]) / 2 * spacing)


def _smoothed(values: torch.Tensor, spacing: float, sigma_mm: float) -> torch.Tensor:
    image = sitk.GetImageFromArray(values.numpy())
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, [(sigma_mm / spacing) ** 2] * 3)))


def _main_part(inside: torch.Tensor, shape: torch.Tensor, spacing: float, radius: float) -> torch.Tensor:
    """The connected part that shares most with the fitted shape, without thin bridges, holes filled."""
    image = sitk.GetImageFromArray(inside.to(torch.uint8).numpy())
    reach = int(np.clip(round(0.25 * radius / spacing), 0, 3))
    if reach:
        opened = sitk.BinaryMorphologicalOpening(image, (reach,) * 3)
        if sitk.GetArrayViewFromImage(opened).any():
            image = opened
    labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image))
    shared = np.bincount(labels[shape.numpy()], minlength=int(labels.max()) + 1)
    shared[0] = 0
    if not shared.any():
        return shape
    part = sitk.GetImageFromArray((labels == int(shared.argmax())).astype(np.uint8))
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.BinaryFillhole(part))) > 0
