"""Named settings: what to compare, how far to look, how stiff the result is, and what it will cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..deform.pyramid import affordable
from ..errors import InputError
from ..features.dns import map_voxels
from ..space.grid import Grid
from .registration import AdamSettings, Level, Settings

# Embeddings for the capture range, organs where the network knows them, MIND for what no network was taught.
_ANATOMY = ("sam", "mind", "semantic")
_DETAIL = ("mind", "semantic", "hu")
_LEARNED = ("dns",)
# Patients are cut off at different places: Dice on eight head-neck pairs 0.656, and 0.652 where what lies beyond is
# forbidden.
_UNSEEN = -0.5

PRESETS: dict[str, Settings] = {
    settings.name: settings
    for settings in (
        Settings(
            "ct-inter-patient",
            "CT of different patients: large differences in shape and field of view.",
            affine="sam",
            levels=(
                Level(12.0, 3, 2, _ANATOMY, (1.0, 1.0, 2.0), _UNSEEN, coupling=0.5, consistent=True),
                Level(6.0, 2, 2, _ANATOMY, (1.0, 1.0, 2.0), _UNSEEN, coupling=0.7),
                Level(2.5, 2, 1, _DETAIL, (1.0, 2.0, 4.0), _UNSEEN, coarsest=3.0, coupling=0.2),
                Level(2.2, 1, 1, _DETAIL, (1.0, 2.0, 4.0), _UNSEEN, coarsest=3.0, coupling=0.2),
            ),
            box_passes=1,
        ),
        Settings(
            "ct-lung-breathing",
            "The same chest at two breathing states: sliding, up to several centimeters.",
            affine="sam",
            polish_affine=True,
            levels=(Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(2.5, 1)),
            coupling=0.02,
            refine="adam",
            adam=AdamSettings(spacing=3.0, iterations=25),
            field_spacing=3.0,
        ),
        Settings(
            "ct-follow-up",
            "The same patient at two dates: small, stiff changes; lesions must not be deformed to fit.",
            affine="sam",
            polish_affine=True,
            levels=(Level(8.0, 3), Level(4.0, 2), Level(3.0, 1)),
            coupling=0.12,
            box_passes=3,
            affine_model="rigid",
        ),
        Settings(
            "ct-multiphase",
            "The same patient before and after contrast agent: organs change brightness, hardly shape.",
            affine="sam",
            polish_affine=True,
            levels=(Level(8.0, 3), Level(4.0, 2), Level(3.0, 1)),
            coupling=0.12,
            affine_model="rigid",
        ),
        Settings(
            "mr-ct",
            "MR and CT of the same patient, compared by learned self-similarity (DNS).",
            # Of 8 patients never seen in training, DNS left 11.4 mm of a known warp of 15.6 on average, MIND 13.4.
            levels=(Level(8.0, 3, 2, _LEARNED), Level(4.0, 2, 2, _LEARNED), Level(3.0, 1, 2, _LEARNED)),
            coupling=0.12,
            refine="diffusion",
            affine_model="rigid",
        ),
        Settings(
            "brain-mr",
            "Brain MR of different patients or sequences.",
            levels=(Level(8.0, 2), Level(4.0, 2), Level(2.0, 2)),
            working_spacing=1.0,
            field_spacing=2.0,
        ),
        Settings(
            "fast-preview",
            "A look in seconds: coarse levels only, no refinement.",
            levels=(Level(12.0, 3), Level(6.0, 2)),
            working_spacing=3.0,
            field_spacing=6.0,
        ),
        Settings(
            "paper",
            "SAMConvex with the levels of its paper (Li et al., MICCAI 2023): embeddings only. For comparisons.",
            affine="sam",
            levels=(Level(16.0, 2, 2, ("sam",)), Level(8.0, 3, 2, ("sam",)), Level(4.0, 3, 2, ("sam-fine",))),
            box_passes=3,
            refine="adam",
            adam=AdamSettings(spacing=4.0, pool=1, iterations=50),
        ),
    )
}


def get_settings(preset: str | Settings) -> Settings:
    """Look up a preset.

    Raises:
        InputError: unknown name.
    """
    if isinstance(preset, Settings):
        return preset
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}; choose one of: {', '.join(PRESETS)}.")
    return PRESETS[preset]


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
    kept = described * 4 * _CHANNELS_READ["dns"] + (4e8 if described else 0.0)
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


# Channels of the descriptors; those read where points come to lie never exist on a finer grid than the level's.
_CHANNELS = {"mind": 12, "hu": 3, "featcnn": 12}
_CHANNELS_READ = {"sam": 32, "sam-fine": 32, "sam-coarse": 32, "semantic": 7, "dns": 24}


def _level_bytes(level: Level, volume_mm3: float) -> float:
    voxels = volume_mm3 / level.spacing**3
    described = max([_CHANNELS.get(name, 0) for name in level.features]) * level.subdivision**3
    kept = sum(_CHANNELS.get(name, _CHANNELS_READ.get(name, 0)) for name in level.features)
    return 4 * 3 * voxels * max(described, kept) + min(voxels * 4.0 * (2 * level.radius + 1) ** 3, 1.5e9)
