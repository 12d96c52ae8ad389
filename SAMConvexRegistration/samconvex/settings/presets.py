"""Named settings: what to compare, how far to look, how stiff the result is, and what it will cost."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError
from .registration import AdamSettings, DiffusionSettings, Level, Settings

# Embeddings for the capture range, organs where the network knows them, MIND for what no network was taught.
_ANATOMY = ("sam", "mind", "semantic")
_DETAIL = ("mind", "semantic", "hu")
_LEARNED = ("dns",)
# Patients are cut off at different places: Dice on eight head-neck pairs 0.656, and 0.652 where what lies beyond is
# forbidden.
_UNSEEN = -0.5

# One person moves smoothly, people differ by more bends than this allows. Known warps of phases were left by 1.5 mm
# without it and by 0.6 with it (RESULTS-multimodal.md); smaller weights are not measured there.
_SMOOTH = AdamSettings(regularization=1.0)

PRESETS: dict[str, Settings] = {
    settings.name: settings
    for settings in (
        Settings(
            "ct-inter-patient",
            "CT of different patients: large differences in shape and field of view.",
            affine="sam",
            polish_affine="organs",
            # Four pairs of training patients, head and neck: Dice +0.010 (0.004 to 0.017).
            coarse="sam",
            # The level of 4 mm, six pairs each of training patients: head and neck +0.007 (0.003 to 0.011), abdomens
            # +0.018 (0.015 to 0.023), SDlogJ +0.04 and +0.09. Twice the weight of the organs, four pairs each: -0.001
            # and +0.006.
            levels=(
                Level(12.0, 3, 2, _ANATOMY, (1.0, 1.0, 2.0), _UNSEEN, coupling=0.5, consistent=True),
                Level(6.0, 2, 2, _ANATOMY, (1.0, 1.0, 2.0), _UNSEEN, coupling=0.7),
                Level(4.0, 2, 2, _ANATOMY, (1.0, 1.0, 2.0), _UNSEEN, coupling=0.7),
                Level(2.5, 2, 1, _DETAIL, (1.0, 2.0, 4.0), _UNSEEN, coarsest=3.0, coupling=0.2),
                Level(2.2, 1, 1, _DETAIL, (1.0, 2.0, 4.0), _UNSEEN, coarsest=3.0, coupling=0.2),
            ),
            box_passes=1,
            # On request, for it takes 30 % of the time. Training patients, Dice: four pairs of abdomens +0.010 (0.004
            # to 0.016), six of head and neck -0.002 (-0.014 to 0.009), SDlogJ a tenth less; with weight 0.2 nothing
            # and -0.006. All channels and 20 steps gained as much on two of them.
            adam=AdamSettings(spacing=3.0, components=12, iterations=12, step_mm=1.0, regularization=0.1, box_passes=1),
            modality="ct",
        ),
        Settings(
            "ct-lung-breathing",
            "The same chest at two breathing states: sliding, up to several centimeters.",
            affine="sam",
            polish_affine="images",
            levels=(Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(2.5, 1)),
            coupling=0.02,
            refine="adam",
            # A known breath of one chest (nlst): mean error 0.81 mm without it, 0.37 with it; with other weights 0.59
            # (3), 0.34 (0.3) and 0.39 (0.1).
            adam=AdamSettings(spacing=3.0, iterations=25, step_mm=1.0, regularization=1.0),
            field_spacing=3.0,
            modality="ct",
        ),
        Settings(
            "ct-follow-up",
            "The same patient at two dates: small, stiff changes; lesions must not be deformed to fit.",
            affine="sam",
            polish_affine="images",
            levels=(Level(8.0, 3), Level(4.0, 2), Level(3.0, 1)),
            coupling=0.12,
            box_passes=3,
            adam=_SMOOTH,
            affine_model="rigid",
            same_patient=True,
            modality="ct",
        ),
        Settings(
            "ct-multiphase",
            "The same patient before and after contrast agent: organs change brightness, hardly shape.",
            affine="sam",
            polish_affine="images",
            levels=(Level(8.0, 3), Level(4.0, 2), Level(3.0, 1)),
            coupling=0.12,
            adam=_SMOOTH,
            affine_model="rigid",
            same_patient=True,
            modality="ct",
        ),
        Settings(
            "mr-ct",
            "MR and CT of the same patient, compared by learned self-similarity (DNS).",
            # Of 8 patients never seen in training, DNS left 11.4 mm of a known warp of 15.6 on average, MIND 13.4.
            levels=(Level(8.0, 3, 2, _LEARNED), Level(4.0, 2, 2, _LEARNED), Level(3.0, 1, 2, _LEARNED)),
            coupling=0.12,
            refine="diffusion",
            adam=_SMOOTH,
            affine_model="rigid",
            same_patient=True,
            modality="mr and ct",
        ),
        Settings(
            "brain-mr",
            "Brain MR of different patients or sequences.",
            levels=(Level(8.0, 2), Level(4.0, 2), Level(2.0, 2)),
            # On request. On ten pairs of hippocampi Dice 0.784 without it, 0.788 (0.1), 0.780 (0.3), 0.771 (1).
            adam=AdamSettings(spacing=2.0),
            working_spacing=1.0,
            field_spacing=2.0,
            modality="mr",
        ),
        Settings(
            "mr-body",
            "MR of the body, the same person at two breathing states or dates: sliding, up to several centimeters.",
            levels=(Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(2.5, 1)),
            coupling=0.02,
            adam=_SMOOTH,
            affine_model="rigid",
            field_spacing=3.0,
            modality="mr",
        ),
        Settings(
            "rigid",
            "Turn and shift alone, for two images of one person in any modality: a bone, a head, a later date.",
            affine="sam",
            polish_affine="images",
            levels=(),
            affine_model="rigid",
        ),
        Settings(
            "affine",
            "Turn, shift, scale and shear alone, for any two images: a start for others, or a map without bends.",
            affine="sam",
            levels=(),
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
            "SAMConvex as published (Li et al., MICCAI 2023): embeddings made anew at every level. For comparisons.",
            affine="sam",
            # The network sees images of 8, 4 and 2 mm, averaged over their voxels; features lie at twice that.
            levels=(
                Level(16.0, 2, 8, ("sam-anew",)),
                Level(8.0, 3, 4, ("sam-anew",)),
                Level(4.0, 3, 2, ("sam-anew-fine",)),
            ),
            couplings=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
            box_passes=3,
            refine="adam",
            # On two training pairs, from the default's field and with 32 components, Dice: hn168-hn172 0.677, with
            # weight 1 0.676, 0.1 0.683, 0.02 0.684, 0.005 0.680; btcv03-btcv11 0.541, 1 0.531, 0.02 0.559.
            adam=AdamSettings(spacing=4.0, pool=2, iterations=50, regularization=0.02, anew=True),
            modality="ct",
        ),
        Settings(
            "masr",
            "MASR-Net's registration (Mok et al., CVPR 2024): learned self-similarity from the affine alone. For "
            "comparisons.",
            levels=(),
            refine="adam",
            refine_features=("dns",),
            # Rates of 0.01, 0.005 and 0.003 of half an image of 400 mm, on grids from half the image's to its own.
            stages=(
                AdamSettings(spacing=4.0, pool=1, iterations=100, step_mm=2.0, regularization=0.6),
                AdamSettings(spacing=3.0, pool=1, iterations=80, step_mm=1.0, regularization=0.5),
                AdamSettings(spacing=2.0, pool=1, iterations=50, step_mm=0.6, regularization=0.4),
            ),
        ),
        Settings(
            "suits",
            "SUITS as published (Blendowski et al., 2020): Gauss-Newton on FeatCNN, made anew at every step. For "
            "comparisons.",
            levels=(),
            refine="diffusion",
            refine_features=("featcnn",),
            # A field on every fourth voxel of 2 mm.
            diffusion=DiffusionSettings(spacing=8.0, pool=4, iterations=15, regularization=10.0, anew=True),
        ),
    )
}

_PATIENTS = PRESETS["ct-inter-patient"]
# What the quality "best" makes of a preset, where more than its common rule was measured: embeddings to the end, and
# instance optimization. Training patients, Dice, together with the level of 4 mm that the preset did not have then: two
# pairs of abdomens +0.030, four of head and neck +0.006, SDlogJ as before; without instance optimization +0.021 and
# +0.010, SDlogJ a sixth more; on 12 principal components as on request it lost 0.012 on one head and neck, where small
# organs scatter little.
BEST: dict[str, Settings] = {
    "ct-inter-patient": replace(
        _PATIENTS,
        levels=(
            *_PATIENTS.levels[:3],
            *(
                replace(level, features=("sam-fine", *level.features), weights=(1.0, *level.weights))
                for level in _PATIENTS.levels[3:]
            ),
        ),
        refine="adam",
        adam=replace(_PATIENTS.adam, components=0),
    ),
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
