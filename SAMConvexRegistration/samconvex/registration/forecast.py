"""What a registration will cost in time and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..deform.feed_forward import VOXELS
from ..deform.pyramid import affordable
from ..features.dns import map_voxels
from ..settings.features import FEATURES, channels_at
from ..settings.registration import AdamSettings, DiffusionSettings, Level, Settings
from ..space.grid import Grid

# Of a feed-forward network, for each voxel that it sees.
_NETWORK_BYTES, _NETWORK_SECONDS = 1500, 1e-5


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
    channels = max(channels_at(settings.refined_by[0])) or 12
    refinements = [_refinement(step, volume_mm3, channels) for step in settings.refinements]
    network = 0.0
    if settings.initial_network:
        network = min(VOXELS, volume_mm3 / settings.working_spacing**3)
    output = 4 * moving.voxel_count + 12 * fixed.voxel_count
    embedding, embedding_seconds = 0.0, 0.0
    if "sam" in (settings.affine, settings.coarse):
        # One image at a time; what the first leaves stays until the affine is found.
        voxels_2mm = [float(np.prod(grid.extent)) / 8.0 for grid in (fixed, moving)]
        embedding = max(voxels_2mm) * 90 + min(voxels_2mm) * 40
        embedding_seconds = 1.0 + sum(voxels_2mm) * 0.2e-6
        # Both images of every level, and those of the refinement.
        embedding_seconds *= 1 + sum(any(FEATURES[n].strided for n in level.features) for level in pyramid) / 2
    described = 0.0
    if "dns" in settings.compared:
        described = 2 * map_voxels(volume_mm3, pyramid[-1].spacing if pyramid else settings.finest)
    # The maps of both images, and what making one takes.
    kept = described * 4 * FEATURES["dns"].channels + (4e8 if described else 0.0)
    peak = (
        0.9e9
        + 4 * native
        + working
        + kept
        + max([*levels, *(memory for memory, _ in refinements), network * _NETWORK_BYTES, embedding, float(output)])
    )
    work = sum(
        (2 * level.radius + 1) ** 3
        * volume_mm3
        / level.spacing**3
        * (2 if level.consistent else 1)
        # 34 channels are those of the finest levels between patients, which the constant was fitted to.
        * max(1.0, 0.5 + sum(channels_at(level.features)) / 68)
        for level in pyramid
    )
    refinement_work = sum(steps for _, steps in refinements)
    convex = work * 2.8e-8 * (2 if settings.symmetric else 1)
    embedding_seconds += described * 2.5e-6 + network * _NETWORK_SECONDS
    # One head and neck: a seventh of its pyramid.
    embedding_seconds += 1.0 if settings.coarse == "sam" else 0.0
    seconds = 2.6 + embedding_seconds + native * 8e-8 + convex + refinement_work * 2e-7
    return Forecast(seconds, peak / 2**30)


def _refinement(step: AdamSettings | DiffusionSettings, volume_mm3: float, channels: int) -> tuple[float, float]:
    """Bytes of one level of the refinement, and its voxel steps."""
    if isinstance(step, AdamSettings):
        voxels = volume_mm3 / (step.spacing / step.subdivision) ** 3
        # Measured on a head and neck with all of 66 channels: 9 times the maps, and longer than with a few components.
        copies, effort = (6, 1.0) if 0 < step.components < channels else (9, max(1.0, channels / 24))
        return voxels * 4 * channels * copies, step.iterations * voxels * effort
    voxels = volume_mm3 / step.spacing**3
    # Features, their three slopes and what is sampled from both, and the multigrid hierarchy.
    return voxels * 4 * (channels * 10 + 60), step.iterations * 20 * voxels


def _level_bytes(level: Level, volume_mm3: float) -> float:
    # Maps read where points come to lie never exist on a finer grid than the level's.
    voxels = volume_mm3 / level.spacing**3
    anew, kept = channels_at(level.features)
    return 4 * 3 * voxels * max(anew * level.subdivision**3, kept) + min(
        voxels * 4.0 * (2 * level.radius + 1) ** 3, 1.5e9
    )
