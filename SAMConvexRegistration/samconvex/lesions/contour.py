"""What a lesion looks like: a scaled contour fitted to the image by contrast, and a new contour suggested from it.

Brightness is first turned into likeness: 1 at the lesion's own level, 0 at that of its surroundings, low again for what
is far beyond either (bone, gas), so that neighbors cannot outshine the lesion. The fit then shifts and scales the
contour until its inside differs most from a shell around it; the difference, ideally near 1, tells whether the lesion
is there. The contour finally follows the half-way level between lesion and surroundings near the fitted shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ..space.grid import Grid
from ..space.sampling import sample
from ..space.volume import Volume, resample

SHELL_MM = 3.0
# Within this of the border, voxels and reconstruction mix a lesion with its surroundings.
BORDER_MM = 2.0
SCALES = tuple(float(s) for s in np.geomspace(0.4, 2.2, 12))
# Smaller differences of level drown in the noise of a CT.
LEAST_CONTRAST = 25.0
# Nearer to the contour than this, likeness beside it may be the lesion's own border, or an error of the map.
ALIKE_GAP_MM = 2.5
# What a shift of 8 mm and a factor e in size must bring in match.
SHIFT_COST = 0.25
SCALE_COST = 0.1


@dataclass(frozen=True)
class Levels:
    """Brightness of a lesion and of its surroundings, in the image's units."""

    inside: float
    outside: float

    @property
    def contrast(self) -> float:
        return self.inside - self.outside

    def likeness(self, values: torch.Tensor) -> torch.Tensor:
        """1 at the lesion's level, 0 at the surroundings', from -0.5 to 1; falling again beyond the lesion's level."""
        sign = 1.0 if self.contrast >= 0 else -1.0
        level = (values - self.outside) * (sign / max(abs(self.contrast), LEAST_CONTRAST))
        # Twice the contrast and more is something else.
        return torch.minimum(level.clamp(-0.5, 1.0), 3.0 - level).clamp(min=-0.5)


@dataclass(frozen=True)
class Fit:
    """A contour fitted to an image.

    Attributes:
        match: mean likeness inside minus in the shell around; near 1 for a sharp lesion, near 0 without one.
        levels: medians inside and around.
        shift: (3,) LPS mm by which the contour moved.
        scale: factor on its lengths.
        soft: the fitted contour, values in [0, 1], on the grid of the image.
    """

    match: float
    levels: Levels
    shift: np.ndarray
    scale: float
    soft: torch.Tensor


def neighborhood(contour: Volume, reach_mm: float) -> Grid:
    """Cubic identity-direction grid around a contour, fine enough for its size."""
    points = contour.points(above=0.5)
    extent = float(np.max(points.max(0) - points.min(0))) + max(contour.grid.spacing)
    spacing = float(np.clip(extent / 12, 0.9, 2.0))
    return Grid.covering(np.stack([points.min(0), points.max(0)]), spacing, margin_mm=reach_mm)


def measured_levels(image: Volume, soft: torch.Tensor, shell: torch.Tensor) -> Levels:
    """Medians of the image in a contour's core and in the shell around it, the blurred border between them left out."""
    values = image.tensor[0, 0]
    distance = signed_distance(soft >= min(0.5, float(soft.max())), image.grid.spacing[0])
    # Small lesions have no voxel that deep: half of their depth is their core.
    core = distance <= max(-BORDER_MM, 0.5 * float(distance.min()))
    ring = shell > 0.5 if bool((shell > 0.5).any()) else shell >= shell.max()
    clear = ring & (distance >= BORDER_MM)
    ring = clear if bool(clear.any()) else ring
    return Levels(float(values[core].median()), float(values[ring].median()))


def alike_beside(image: Volume, contour: Volume, levels: Levels) -> torch.Tensor:
    """(D, H, W) bool: what looks like the lesion where the lesion is not, by an image that shows where it is.

    Args:
        image: on the contour's grid. contour: values in [0, 1]. levels: of the lesion in that image.
    """
    spacing = image.grid.spacing[0]
    shape = contour.tensor[0, 0] >= min(0.5, float(contour.tensor.max()))
    values = smoothed(image.tensor[0, 0].float(), spacing, 1.0)
    return (levels.likeness(values) > 0.5) & (signed_distance(shape, spacing) > ALIKE_GAP_MM)


def fit_contour(
    image: Volume,
    contour: Volume,
    levels: Levels | None = None,
    *,
    scales: Sequence[float] = SCALES,
    shift_mm: float = 8.0,
    alike: torch.Tensor | None = None,
) -> Fit:
    """Shift and scale of ``contour`` (on the image's grid, values in [0, 1]) that contrast best with a shell around it.

    Args:
        levels: of the lesion and its surroundings; None measures them at the contour as it is.
        shift_mm: how far the contour may move.
        alike: (D, H, W) bool, what is known to be something else; it speaks neither for the lesion nor against it.
    """
    grid = image.grid
    # Drawn on coarse voxels a contour fades out slowly; the fit needs to know where it ends.
    contour = contour.with_tensor(((contour.as_float() - 0.5) * 3 + 0.5).clamp(0, 1))
    middle, radius = _center_of(contour), _radius(contour.tensor, grid)
    if levels is None:
        levels = measured_levels(image, *with_shell(contour, middle, 1.0, radius))
    likeness = levels.likeness(image.tensor[0, 0].float())
    if alike is not None:
        likeness = torch.where(alike, likeness.clamp(max=0.0), likeness)
    spectrum = torch.fft.rfftn(likeness)
    offsets = _offsets(grid)
    length = offsets.norm(dim=-1)
    prior = SHIFT_COST * (length / 8.0) ** 2 + 9.0 * (length > shift_mm)
    best = (-np.inf, 0.0, 1.0, np.zeros(3))
    for scale in scales:
        soft, shell = with_shell(contour, middle, scale, radius)
        if float(soft.sum()) < 1 or float(shell.sum()) < 1:
            continue
        kernel = torch.fft.rfftn(soft / soft.sum() - shell / shell.sum()).conj()
        match = torch.fft.irfftn(spectrum * kernel, s=likeness.shape)
        objective = match - prior - SCALE_COST * abs(np.log(scale))
        row = int(objective.argmax())
        value = float(objective.flatten()[row])
        if value > best[0]:
            best = (value, float(match.flatten()[row]), scale, offsets.view(-1, 3)[row].numpy().astype(float))
    _, matched, scale, shift = best
    soft, shell = with_shell(contour, middle, scale, radius, shift)
    return Fit(matched, measured_levels(image, soft, shell), shift, scale, soft)


def suggest_contour(image: Volume, fit: Fit, alike: torch.Tensor | None = None) -> torch.Tensor:
    """(D, H, W) bool on the image's grid: the region near the fitted contour on the lesion's side of the contrast.

    Args:
        alike: as in :func:`fit_contour`; no part of the lesion.
    """
    grid = image.grid
    spacing = grid.spacing[0]
    values = image.tensor[0, 0].float()
    shape = fit.soft > 0.5
    if not bool(shape.any()):
        shape = fit.soft >= fit.soft.max()
    distance = signed_distance(shape, spacing)
    radius = max(_radius(shape.float(), grid), spacing)
    core = distance <= min(-0.35 * radius, float(distance.min()) + 0.5 * spacing)
    lesion = float(values[core].median())
    near = (distance > 0.75 * spacing) & (distance < max(2 * SHELL_MM, 0.6 * radius))
    if alike is not None and bool((near & ~alike).any()):
        near &= ~alike
    # Tissue beside the lesion that is as bright as it, or far beyond it, does not tell where the border is.
    level = (values[near] - lesion) * np.sign(fit.levels.contrast) / max(abs(fit.levels.contrast), LEAST_CONTRAST)
    usable = (level < -0.4) & (level > -3.0)
    chosen = values[near][usable] if int(usable.sum()) > 0.1 * int(near.sum()) else values[near]
    background = float(chosen.median())
    contrast = lesion - background
    if abs(contrast) < 5.0:
        return shape
    noise = float((values[core] - lesion).abs().median()) * 1.48 / abs(contrast)
    clear = smoothed(values, spacing, min(0.5 * radius, spacing * (0.4 + min(noise, 1.0))))
    level = (clear - background) / contrast
    # 0.5 in the lesion, falling to either side: as far below half-way as above one and a half.
    evidence = (0.5 - (level - 1).abs()).clamp(-0.5, 0.5)
    # Free near the fitted shape, impossible half a radius away from it.
    shape_term = 0.5 * distance.sign() * (distance / (0.5 * radius + 2.5)) ** 2
    trust = 1 / (1 + noise**2)
    inside = trust * evidence - shape_term - (1 - trust) * 0.1 * distance > 0
    if alike is not None:
        inside &= ~alike
    return _main_part(inside, shape, spacing, radius)


def scaled(contour: Volume, middle: np.ndarray, scale: float, shift: np.ndarray | None = None) -> torch.Tensor:
    """(D, H, W) float: the contour scaled about ``middle`` (LPS mm), then shifted, on its own grid."""
    grid = contour.grid
    if scale == 1.0 and shift is None:
        return contour.tensor[0, 0].float()
    target = grid.voxel_centers(reference=middle if shift is None else middle + shift)
    return sample(contour.as_float(), grid, target / scale, reference=middle, fill=0.0)[0, 0]


def with_shell(
    contour: Volume, middle: np.ndarray, scale: float, radius: float, shift: np.ndarray | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scaled contour and the shell around it, (D, H, W) float; ``radius`` of the contour before scaling, mm."""
    soft = scaled(contour, middle, scale, shift)
    width = max(SHELL_MM, 0.4 * radius * scale)
    outer = scaled(contour, middle, scale * (1 + width / max(radius * scale, 0.5)), shift)
    return soft, (outer - soft).clamp(min=0) * (1 - soft)


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
        index = torch.arange(count, dtype=torch.float32)
        axes.append(torch.where(index > count / 2, index - count, index) * spacing)
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return torch.stack([x, y, z], -1)


def _radius(soft: torch.Tensor, grid: Grid) -> float:
    """Radius of the ball of the same volume, mm."""
    return float((3 * float(soft.sum()) * float(np.prod(grid.spacing)) / (4 * np.pi)) ** (1 / 3))


def signed_distance(shape: torch.Tensor, spacing: float) -> torch.Tensor:
    """(D, H, W) mm to the border of ``shape``, negative inside; the border runs between voxels."""
    image = sitk.GetImageFromArray(shape.to(torch.uint8).numpy())
    parts = []
    for mask in (image, sitk.Equal(image, 0)):
        squared = sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False)
        parts.append(sitk.GetArrayFromImage(squared))
    # Each map counts to the nearest border voxel of its own side: the mean lies in between.
    return torch.from_numpy((parts[0] - parts[1]) / 2 * spacing)


def smoothed(values: torch.Tensor, spacing: float, sigma_mm: float) -> torch.Tensor:
    """(D, H, W) smoothed by a Gaussian; cubic voxels of ``spacing`` mm."""
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
