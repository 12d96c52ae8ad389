"""Named settings: what to compare, how far to look, how stiff the result is, and what it will cost."""

from __future__ import annotations

from ..errors import InputError
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
            # On request only: of two training pairs the abdomen gained by it (Dice 0.604 to 0.617), the head and neck
            # lost (0.585 to 0.575), all of that by the filter alone (0.573).
            adam=AdamSettings(spacing=4.0, iterations=20, regularization=0.1),
        ),
        Settings(
            "ct-lung-breathing",
            "The same chest at two breathing states: sliding, up to several centimeters.",
            affine="sam",
            polish_affine=True,
            levels=(Level(12.0, 3), Level(6.0, 3), Level(4.0, 2), Level(2.5, 1)),
            coupling=0.02,
            refine="adam",
            adam=AdamSettings(spacing=3.0, iterations=25, step_mm=1.0),
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
            adam=AdamSettings(spacing=4.0, pool=1, iterations=50, step_mm=1.0),
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
