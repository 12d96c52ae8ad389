"""Two plain choices on top of a preset, for people who do not want to know its numbers: strength and quality."""

from __future__ import annotations

from dataclasses import replace

from .errors import InputError
from .presets import Settings

STRENGTHS = ("gentle", "standard", "strong")
QUALITIES = ("fast", "standard", "best")

# Factor on everything that holds neighboring tissue together.
_STIFFNESS = {"gentle": 3.0, "standard": 1.0, "strong": 1.0 / 3.0}


def adjusted(settings: Settings, strength: str = "standard", quality: str = "standard") -> Settings:
    """Settings for a chosen strength and quality; "standard" leaves the preset as it is.

    Args:
        strength: "gentle" deforms smoothest, "strong" follows detail.
        quality: "fast" halves the refinement, "best" doubles it and solves both directions.

    Raises:
        InputError: an unknown choice.
    """
    if strength not in STRENGTHS:
        raise InputError(f"There is no strength {strength!r}; choose one of: {', '.join(STRENGTHS)}.")
    if quality not in QUALITIES:
        raise InputError(f"There is no quality {quality!r}; choose one of: {', '.join(QUALITIES)}.")
    factor = _STIFFNESS[strength]
    adam = replace(settings.adam, regularization=settings.adam.regularization * factor)
    diffusion = replace(settings.diffusion, regularization=settings.diffusion.regularization * factor)
    if quality == "fast":
        adam = replace(adam, iterations=max(1, adam.iterations // 2))
        diffusion = replace(diffusion, iterations=max(1, diffusion.iterations // 2))
    elif quality == "best":
        adam = replace(adam, iterations=adam.iterations * 2)
        diffusion = replace(diffusion, iterations=diffusion.iterations * 2)
    return replace(
        settings,
        coupling=settings.coupling * factor,
        adam=adam,
        diffusion=diffusion,
        symmetric=settings.symmetric or quality == "best",
    )
