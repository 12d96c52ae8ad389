"""From the features of a pair to a field on its final grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ..deform.adam import optimize
from ..deform.consistency import inverse_consistent
from ..deform.diffusion import descend
from ..deform.folding import without_folds
from ..deform.scene import Extractor, Scene, View, described
from ..progress import Progress
from ..settings.registration import Settings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.intensity import normalized_intensity
from ..space.transforms import Transform
from ..space.volume import Volume

_FADE_MM = 40.0


def on_device(volume: Volume, device: torch.device) -> Volume:
    return volume.with_tensor(volume.tensor.to(device))


def normalized_volume(volume: Volume) -> Volume:
    """Intensities in [0, 1]; networks with an input for each modality still learn which it was."""
    return replace(volume, tensor=normalized_intensity(volume), known_modality=volume.modality)


def share_of(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of ``count`` runs through the same stages."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, (number + fraction) / count, message)

    return report


def cost_budget(limit_gib: float | None) -> int:
    """Bytes that a level's costs may occupy."""
    return int(min(1.0, 0.35 * (limit_gib or 4.0)) * 2**30)


def refined(
    scene: Scene,
    extractor: Extractor,
    settings: Settings,
    deformation: DisplacementField,
    report: Callable[[float], None],
) -> DisplacementField:
    adam, diffusion = settings.adam, settings.diffusion
    by_adam = settings.refine == "adam"
    spacing, pool, parts = (
        (adam.spacing, adam.pool, adam.subdivision) if by_adam else (diffusion.spacing, diffusion.pool, 1)
    )
    grid = Grid.covering(scene.box, spacing)
    dense = grid.subdivided(parts)
    # Displaced samples may leave the box by a few centimeters.
    wide = grid.padded(int(24.0 / spacing)).subdivided(parts)
    chosen = (extractor, settings.levels[-1].features, settings.levels[-1].weights)
    fixed = described(View(scene, "fixed"), *chosen, dense, pool)
    moving = described(View(scene, "moving"), *chosen, wide, pool)
    # The edge of the moving image is no feature: what lies beyond pulls at nothing.
    weight = scene.weight_on(dense) * scene.valid_on(dense, deformation)
    if by_adam:
        return optimize(deformation, fixed, moving, weight, adam, grid=grid, report=report)
    return descend(deformation, fixed, moving, weight, diffusion, grid=grid, report=report)


def final_field(
    fixed: Volume, moving: Volume, initial: Transform, solved: list[DisplacementField], settings: Settings, needed: bool
) -> DisplacementField | None:
    """The field on its final grid, free of folds; without a deformation None, or zeros if it is ``needed``.

    Args:
        solved: the field, and that of the exchanged images where there is one.
    """
    if not solved:
        grid = Grid.covering(fixed.grid.corners(), settings.field_spacing, margin_mm=2 * settings.field_spacing)
        return DisplacementField.zeros(grid) if needed else None
    deformation = _embedded(solved[0], fixed, settings)
    if len(solved) == 2:
        deformation = inverse_consistent(deformation, _embedded(solved[1], moving, settings), initial)
    return without_folds(deformation) if settings.fold_free else deformation


def _embedded(field: DisplacementField, image: Volume, settings: Settings) -> DisplacementField:
    """On a grid that covers the image too, fading out to zero at the border."""
    corners = np.concatenate([image.grid.corners(), field.grid.corners()])
    grid = Grid.covering(corners, settings.field_spacing, margin_mm=2 * settings.field_spacing)
    return field.embedded(grid, _FADE_MM)


def both_ways(
    initial: Transform, deformation: DisplacementField | None, settings: Settings, report: Callable[[float], None]
) -> tuple[Transform, Transform]:
    """The map and its inverse; in a symmetric registration the inverse has half the field's spacing."""
    if deformation is None:
        return initial, initial.inverse()
    grid = deformation.grid.subdivided(2) if settings.symmetric else None
    inverse = deformation.inverse(grid=grid, report=report)
    return Transform((deformation, *initial.parts)), Transform((*initial.inverse().parts, inverse))
