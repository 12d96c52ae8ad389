"""Coarse to fine: warp what is known, describe both images, correlate, solve, compose.

SAMConvex (Li et al., MICCAI 2023), Fig. 2, for any feature descriptor. All grids have identity direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ..progress import Progress, stage
from ..settings.registration import COUPLINGS, FORBIDDEN, Level
from ..space.field import DisplacementField
from ..space.filters import dilated, smooth
from ..space.grid import Grid
from .consistency import symmetrized
from .convex import coupled_convex
from .correlation import LocalCorrelation
from .scene import Extractor, Scene, View, described

# What counts less than this is not matched but continues what is. Dice on eight head-neck pairs: 0.609 with 0 and 0.05,
# 0.612 with 0.4, 0.610 with 0.7.
_BELIEVED = 0.4
# So many voxels a level may match before it becomes coarser: those of a head and neck with shoulders at 2.5 mm.
_VOXELS = 1_200_000


def solve_level(
    scene: Scene,
    extractor: Extractor,
    level: Level,
    field: DisplacementField | None,
    *,
    coupling: float,
    couplings: Sequence[float] = COUPLINGS,
    box_passes: int,
    report: Callable[[float], None],
) -> DisplacementField:
    """Improve ``field`` by one level; returns the composed field on the level's control grid."""
    control = Grid.covering(scene.box, level.spacing)
    reach = control.padded(level.radius)
    chosen = (extractor, level.features, level.weights)
    fixed = described(View(scene, "fixed"), *chosen, control, level.subdivision, scene.dtype).tensor
    weight = scene.weight_on(control)
    report(0.1)
    previous = None if field is None else field.on_grid(reach, fill=None)
    moving = described(View(scene, "moving", previous), *chosen, reach, level.subdivision, scene.dtype).tensor
    valid = scene.valid_on(reach, previous)
    report(0.25)

    def solve(
        images: tuple[torch.Tensor, torch.Tensor], valid: torch.Tensor, weight: torch.Tensor, start: float, end: float
    ) -> torch.Tensor:
        correlation = LocalCorrelation(
            *images,
            level.radius,
            valid=valid,
            weight=weight,
            unseen=FORBIDDEN if scene.strict else level.unseen,
            memory_budget=scene.memory_budget,
            dtype=scene.dtype,
        )
        return coupled_convex(
            correlation,
            control.spacing,
            coupling_per_mm2=coupling * level.coupling,
            couplings=couplings,
            box_passes=box_passes,
            weight=weight,
            report=lambda fraction: report(start + (end - start) * fraction),
        )

    r = level.radius
    crop = (slice(None), slice(None), *(slice(r, -r),) * 3)
    # What lies beyond the moving image, or may, follows its neighbors instead of the nearest place that exists.
    weight = weight * _edge(valid, r)[crop]
    weight = weight * (weight > _BELIEVED)
    forward = solve((fixed, moving), valid, weight, 0.25, 0.6 if level.consistent else 0.95)
    if level.consistent:
        pad = (r,) * 6
        padded_fixed = F.pad(fixed, pad, mode="replicate")
        in_box = F.pad(torch.ones_like(weight), pad) > 0.5
        # Only near what counts: the field of the air is never used.
        near = dilated(weight > 0, r) & valid[crop]
        backward = solve((moving[crop], padded_fixed), in_box, near.float(), 0.6, 0.95)
        forward = symmetrized(DisplacementField(forward, control), DisplacementField(backward, control)).tensor
    step = DisplacementField(smooth(forward, 1), control)
    result = step if previous is None else previous.after(step)
    report(1.0)
    return result


def _edge(valid: torch.Tensor, reach: int) -> torch.Tensor:
    """Weight (1, 1, D, H, W) in [0, 1] that falls off towards the end of the data, from half of ``reach`` voxels on."""
    return valid * smooth(valid.float(), 1, radius=max(1, reach // 2)) ** 4


def affordable(levels: Sequence[Level], counted_mm3: float) -> list[Level]:
    """The levels with the spacing at which no more than ``_VOXELS`` voxels count, within what they allow.

    A level that is hardly finer then than the one before is left out.
    """
    kept: list[Level] = []
    for level in levels:
        if level.coarsest:
            spacing = min(max(level.spacing, (counted_mm3 / _VOXELS) ** (1 / 3)), level.coarsest)
            if kept and spacing > 0.95 * kept[-1].spacing:
                continue
            level = replace(level, spacing=spacing)
        kept.append(level)
    return kept


def run_pyramid(
    scene: Scene,
    extractor: Extractor,
    levels: Sequence[Level],
    *,
    start: DisplacementField | None = None,
    coupling: float,
    couplings: Sequence[float] = COUPLINGS,
    box_passes: int = 2,
    forget: Callable[[set[str]], None] | None = None,
    progress: Progress | None = None,
) -> DisplacementField:
    """Solve all levels, coarse to fine; returns the field (before ``scene.initial``) on the last control grid.

    Args:
        start: what is known already, before ``scene.initial``.
        forget: told the names of descriptors that will not be asked for again, to let go of them.
    """
    field = start
    levels = affordable(levels, scene.counted_mm3())
    work = np.array([level.spacing**-3 * (2 * level.radius + 1) ** 3 for level in levels])
    ends = np.cumsum(work) / work.sum()
    for number, level in enumerate(levels):
        report = stage(progress, "convex", float(ends[number - 1]) if number else 0.0, float(ends[number]))
        field = solve_level(
            scene,
            extractor,
            level,
            field,
            coupling=coupling,
            couplings=couplings,
            box_passes=box_passes,
            report=report,
        )
        if forget is not None:
            # The last level's descriptors may be wanted for a refinement.
            later = {name for following in (*levels[number + 1 :], levels[-1]) for name in following.features}
            forget(set(level.features) - later)
    if field is None:
        raise ValueError("levels is empty; give at least one Level")
    return field
