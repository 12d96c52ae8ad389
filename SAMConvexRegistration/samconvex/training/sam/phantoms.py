"""Invented torsos as training data: the recipe can be tried, and is tested, without any patient's image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...synthetic.phantom import make_phantom
from ..data.cases import Case, make_case
from .settings import SamSettings

PHANTOMS = 8
HELD_OUT = 2
DRAWN_AT_MM = 4.0


def phantom_name(seed: int) -> str:
    """Case name of one phantom."""
    return f"phantom{seed:02d}"


def phantom_cases(
    spacing: float, count: int = PHANTOMS, progress: Callable[[float, str], None] | None = None
) -> list[Case]:
    """Cases of ``count`` different phantoms at the working spacing, with their organ labels."""
    cases = []
    for seed in range(count):
        ct, labels, _ = make_phantom(seed, max(spacing, DRAWN_AT_MM))
        cases.append(make_case(ct, labels, name=phantom_name(seed), group="phantom", spacing=spacing))
        if progress is not None:
            progress((seed + 1) / count, "")
    return cases


def with_phantom_validation(settings: SamSettings, count: int = PHANTOMS) -> SamSettings:
    """The settings with the last phantoms held out, if nothing else is."""
    if settings.validation:
        return settings
    return replace(settings, validation=[phantom_name(seed) for seed in range(count - HELD_OUT, count)])
