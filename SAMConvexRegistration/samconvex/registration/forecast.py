"""What a registration will cost in time and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..deform.pyramid import affordable
from ..features.dns import map_voxels
from ..settings.features import FEATURES, channels_at
from ..settings.registration import Level, Settings
from ..space.grid import Grid


@dataclass(frozen=True)
class Forecast:
    """What a run will take: seconds on two cores and the peak memory of the process in GiB."""

    seconds: float
    memory_gib: float


def forecast(settings: Settings, fixed: Grid, moving: Grid) -> Forecast:
    """Estimate time and memory of a registration from the sizes of the images.

    The constants were fitted to runs of ``Testing/benchmarks``; memory is an upper bound, seconds a guide.
    """
    native = fixed.voxel_count + moving.voxel_count
    volume_mm3 = float(np.prod(fixed.extent))
    # Bytes: both images and the moving one as float32, the working copies, the largest level's features and costs.
    working = 2 * 4 * volume_mm3 / settings.working_spacing**3
    # About half of an image is body.
    pyramid = affordable(settings.levels, 0.5 * volume_mm3)
    levels = [_level_bytes(level, volume_mm3) for level in pyramid]
    refinement = 0.0
    if settings.refine == "adam":
        voxels = volume_mm3 / (settings.adam.spacing / settings.adam.subdivision) ** 3
        refinement = voxels * 4 * 12 * 6
    elif settings.refine == "diffusion":
        # Features, their three slopes and what is sampled from both, and the multigrid hierarchy.
        refinement = volume_mm3 / settings.diffusion.spacing**3 * 4 * (12 * 10 + 60)
    output = 4 * moving.voxel_count + 12 * fixed.voxel_count
    embedding, embedding_seconds = 0.0, 0.0
    if settings.affine == "sam":
        # One image at a time; what the first leaves stays until the affine is found.
        voxels_2mm = [float(np.prod(grid.extent)) / 8.0 for grid in (fixed, moving)]
        embedding = max(voxels_2mm) * 90 + min(voxels_2mm) * 40
        embedding_seconds = 1.0 + sum(voxels_2mm) * 0.2e-6
    described = 0.0
    if any("dns" in level.features for level in pyramid):
        described = 2 * map_voxels(volume_mm3, pyramid[-1].spacing)
    # The maps of both images, and what making one takes.
    kept = described * 4 * FEATURES["dns"].channels + (4e8 if described else 0.0)
    peak = 0.8e9 + 4 * native + working + kept + max([*levels, refinement, embedding, float(output)])
    work = sum(
        (2 * level.radius + 1) ** 3 * volume_mm3 / level.spacing**3 * (2 if level.consistent else 1)
        for level in pyramid
    )
    refinement_work = 0.0
    if settings.refine == "adam":
        voxels = volume_mm3 / (settings.adam.spacing / settings.adam.subdivision) ** 3
        refinement_work = settings.adam.iterations * voxels
    elif settings.refine == "diffusion":
        refinement_work = settings.diffusion.iterations * 20 * volume_mm3 / settings.diffusion.spacing**3
    convex = work * 3.2e-8 * (2 if settings.symmetric else 1)
    seconds = 1.5 + embedding_seconds + described * 2.5e-6 + native * 8e-8 + convex + refinement_work * 2e-7
    return Forecast(seconds, peak / 2**30)


def _level_bytes(level: Level, volume_mm3: float) -> float:
    # Maps read where points come to lie never exist on a finer grid than the level's.
    voxels = volume_mm3 / level.spacing**3
    anew, kept = channels_at(level.features)
    return 4 * 3 * voxels * max(anew * level.subdivision**3, kept) + min(
        voxels * 4.0 * (2 * level.radius + 1) ** 3, 1.5e9
    )
