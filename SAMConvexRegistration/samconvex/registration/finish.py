"""The field on its final grid, free of folds; protected bodies; both maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..deform.consistency import inverse_consistent
from ..deform.folding import without_folds
from ..deform.protect import RESIDUAL_MM, protect
from ..progress import stage
from ..settings.registration import Settings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.transforms import Transform
from ..space.volume import Volume
from .run import Run

_FADE_MM = 40.0


@dataclass(frozen=True)
class Maps:
    """What a registration found.

    Attributes:
        start: before anything was done, fixed to moving points.
        forward, backward: the map and its inverse.
        jacobian: determinant of the deformation on its grid; None without one.
        protected: how well every protected body was kept.
    """

    start: Transform
    forward: Transform
    backward: Transform
    jacobian: Volume | None = None
    protected: tuple[dict, ...] = ()


def finished(fixed: Volume, moving: Volume, initial: Transform, solved: list[DisplacementField], run: Run) -> Maps:
    """Both maps from the solved field (and, where there is one, that of the exchanged images)."""
    options, progress = run.options, run.progress
    with run.clock("finish"):
        deformation = _final_field(fixed, moving, initial, solved, run.settings, options.protect_mask is not None)
        progress("finish", 0.3)
        protected: list[dict] = []
        if deformation is not None and options.protect_mask is not None:
            deformation, protected = protect(
                deformation, initial, options.protect_mask, options.protect_mode, stage(progress, "finish", 0.3, 0.5)
            )
            run.warnings += _protection_warnings(protected)
        forward, backward = _both_ways(initial, deformation, run.settings, stage(progress, "finish", 0.5))
        jacobian = None if deformation is None else Volume(deformation.jacobian_determinant(), deformation.grid)
    return Maps(options.start, forward, backward, jacobian, tuple(protected))


def _final_field(
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


def _both_ways(
    initial: Transform, deformation: DisplacementField | None, settings: Settings, report: Callable[[float], None]
) -> tuple[Transform, Transform]:
    """The map and its inverse; in a symmetric registration the inverse has half the field's spacing."""
    if deformation is None:
        return initial, initial.inverse()
    grid = deformation.grid.subdivided(2) if settings.symmetric else None
    inverse = deformation.inverse(grid=grid, report=report)
    return Transform((deformation, *initial.parts)), Transform((*initial.inverse().parts, inverse))


def _protection_warnings(bodies: list[dict]) -> list[str]:
    loose = sorted({body["label"] for body in bodies if body["residual_mm"] > RESIDUAL_MM})
    if not loose:
        return []
    worst = max(body["residual_mm"] for body in bodies)
    return [
        f"Protected label {', '.join(map(str, loose))} could not be kept exactly (up to {worst:.1f} mm off): bodies "
        "lie too close together or would fold the tissue between them; protect fewer, or outline them apart."
    ]
