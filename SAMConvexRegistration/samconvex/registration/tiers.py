"""Smaller settings where memory is short: full, half, fast; the first that fits is taken, and said."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ResourceError
from ..memory import available_memory_gib, current_memory_mib, machine_memory_gib
from ..settings.registration import Settings
from ..space.volume import Volume
from .forecast import forecast

TIERS = ("full", "half", "fast")
_FAST_FINEST_MM = 6.0


def tier(settings: Settings, name: str) -> Settings:
    """Settings as ``name`` allows; each tier needs no more than the one before.

    "half" leaves out the finest level, takes the others as coarse as they may become, averages images to 1.5 times the
    working spacing and refines on a grid 1.5 times as coarse. "fast" keeps the levels of 6 mm and more, images at twice
    the working spacing, and does not refine; a refinement that is all there is stays, on a grid twice as coarse.
    """
    if name == "full" or not settings.deforms:
        return settings
    if name == "fast" and not settings.levels:
        return _coarser(settings, 2.0)
    levels = tuple(
        replace(level, spacing=max(level.spacing, level.coarsest)) for level in settings.levels[:-1] or settings.levels
    )
    if name == "half":
        return replace(_coarser(settings, 1.5), levels=levels)
    return replace(
        settings,
        levels=tuple(level for level in levels if level.spacing >= _FAST_FINEST_MM) or levels[:1],
        working_spacing=2.0 * settings.working_spacing,
        refine="none",
    )


def _coarser(settings: Settings, factor: float) -> Settings:
    """Images and refinement on grids ``factor`` times as coarse."""
    return replace(
        settings,
        working_spacing=factor * settings.working_spacing,
        adam=replace(settings.adam, spacing=factor * settings.adam.spacing),
        diffusion=replace(settings.diffusion, spacing=factor * settings.diffusion.spacing),
        stages=tuple(replace(step, spacing=factor * step.spacing) for step in settings.stages),
    )


def fitting(
    settings: Settings, fixed: Volume, moving: Volume, limit_gib: float | None = None
) -> tuple[Settings, str, str | None]:
    """The settings of the first tier whose forecast fits into memory.

    Args:
        limit_gib: what the process may hold at most; None takes what is free now, and then refuses only what this
            machine could not hold if everything else were closed.

    Returns:
        The settings, the tier's name, and a sentence for the user where it is not "full".

    Raises:
        ResourceError: no tier fits.
    """
    allowed = limit_gib
    if allowed is None:
        # The forecast is of the whole process, which holds the images already.
        allowed = available_memory_gib() + current_memory_mib() / 1024
    needs = {name: forecast(tier(settings, name), fixed.grid, moving.grid).memory_gib for name in TIERS}
    name = next((name for name in TIERS if needs[name] <= allowed), None)
    if name is None:
        smallest = min(needs, key=lambda known: needs[known])
        if limit_gib is not None or needs[smallest] > machine_memory_gib():
            there = f"{machine_memory_gib():.1f} GiB of this machine"
            limit = there if limit_gib is None else f"limit of {limit_gib:g} GiB"
            raise ResourceError(
                f"Registering {fixed.name} and {moving.name} with {settings.name} needs about {needs['full']:.1f} GiB, "
                f"more than the {limit}; allow the {needs[smallest]:.1f} GiB of the smallest settings or crop the "
                "images."
            )
        name = smallest
    if name == "full":
        return settings, name, None
    return (
        tier(settings, name),
        name,
        (
            f"The settings of {settings.name} need about {needs['full']:.1f} GiB and {allowed:.2g} GiB of memory may "
            f"be used: the tier '{name}' was taken ({needs[name]:.1f} GiB), which is coarser."
        ),
    )
