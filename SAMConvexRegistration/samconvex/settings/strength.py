"""Two plain choices on top of a preset, for people who do not want to know its numbers: strength and quality."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from ..errors import InputError
from .presets import BEST, PRESETS
from .registration import AdamSettings, DiffusionSettings, Settings

Refinement = TypeVar("Refinement", AdamSettings, DiffusionSettings)

MODES = ("rigid", "volume")
STRENGTHS = ("stiff", "normal", "flexible")
QUALITIES = ("fast", "standard", "best")

# Factor on everything that holds neighboring tissue together, and box filters more or less after each coupled pass.
_STIFFNESS = {"stiff": (4.0, 1), "normal": (1.0, 0), "flexible": (0.25, -1)}


def adjusted(settings: Settings, strength: str = "normal", quality: str = "standard") -> Settings:
    """Settings for a chosen strength and quality; "normal" and "standard" leave the preset as it is.

    Args:
        strength: "stiff" multiplies the coupling and the refinement's regularization by 4 and filters each coupled
            pass once more: smoothest. "flexible" divides by 4 and filters once less (never without): follows detail.
        quality: "fast" halves the refinement, "best" doubles it and solves both directions, or does what was measured
            to be more exact (:data:`samconvex.settings.presets.BEST`).

    Raises:
        InputError: an unknown choice.
    """
    if strength not in STRENGTHS:
        raise InputError(f"There is no strength {strength!r}; choose one of: {', '.join(STRENGTHS)}.")
    if quality not in QUALITIES:
        raise InputError(f"There is no quality {quality!r}; choose one of: {', '.join(QUALITIES)}.")
    if quality == "best" and settings == PRESETS.get(settings.name) and settings.name in BEST:
        return adjusted(BEST[settings.name], strength)
    factor, passes = _STIFFNESS[strength]

    def changed(step: Refinement) -> Refinement:
        iterations = {"fast": max(1, step.iterations // 2), "best": step.iterations * 2}.get(quality, step.iterations)
        return replace(step, regularization=step.regularization * factor, iterations=iterations)

    return replace(
        settings,
        coupling=settings.coupling * factor,
        box_passes=max(1, settings.box_passes + passes),
        adam=changed(settings.adam),
        diffusion=changed(settings.diffusion),
        stages=tuple(changed(step) for step in settings.stages),
        symmetric=settings.symmetric or quality == "best",
    )


def stiffness_numbers(settings: Settings) -> dict[str, Any]:
    """What a strength acts on: ``coupling``, ``box_passes`` and, where a refinement follows, ``regularization``."""
    numbers: dict[str, Any] = {"coupling": settings.coupling, "box_passes": settings.box_passes}
    if settings.refine != "none":
        numbers["regularization"] = settings.refinements[-1].regularization
    return numbers
