"""Whether a lesion is at its place in a follow-up, how large it is there, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..space.grid import Grid
from ..space.volume import Volume
from .baseline import Baseline
from .contour import LEAST_CONTRAST, Fit, alike_beside, fit_contour, neighborhood, suggest_contour
from .course import GONE, NOT_FOUND, OUTSIDE, SPLIT
from .findings import Finding
from .locating import Place
from .measurement import Measurement, centroid, size_in
from .patches import as_labels, output_grid, patch
from .precision import expected_error
from .splitting import separate_parts
from .states import size_state

# Weights of presence(); fitted to invented lesions in CTs that the tracking benchmark does not evaluate.
_PRESENCE = (-0.9, 2.4, 2.2, 1.0, -2.2, -0.95, -1.65)
# What parts with a gap between them add to it: on training CTs they were seen in 13 of 22 lesions that had split and in
# one of 135 others, a likelihood ratio far above e^1.5; small parts match less than a whole lesion does.
_PRESENCE_PARTS = 1.5
# Below this nothing there looks like the lesion; between this and the score of what is found it is not sure.
GONE_SCORE = 0.35
# Score and the bound, mm, that nine of ten distances to the true place stay below, and how much wider it is where the
# baseline's contour was found in a box or at diameters. Of 120 lesions that were found, invented ones in seven CTs that
# the tracking benchmark does not evaluate; with each CT left out in turn the bound held for 88 %.
_BOUNDS_FOUND = ((0.6, 5.5), (0.97, 3.25))
_BOUND_CONTOUR_MM = 3.5
# Of the places of 42 lesions that were gone.
_BOUND_EMPTY = 3.1
# With nothing at a place the lesion is gone, where no match of its own that leads back says that it is elsewhere. What
# has vanished matches anything, and leads back anywhere.
_APART_MM, _BACK_MM = 25.0, 10.0
# What the way through the visit before may differ by; twice as much takes two thirds of the score.
LOOP_MM = 8.0


@dataclass(frozen=True)
class Judged:
    """A finding, and the contours behind it on a cubic grid around the place: also of lesions that came as a point.

    Attributes:
        contour: of what is there, in [0, 1]; None where nothing was found. carried: the baseline's; None outside.
    """

    finding: Finding
    contour: Volume | None = None
    carried: Volume | None = None


def judge(
    entry: Baseline, follow_up: Volume, place: Place, number: int, limit: float, loop_mm: float = float("nan")
) -> Judged:
    """Carry the contour, look whether the lesion is there, measure it, and say so.

    Args:
        number: of the follow-up, from 0. limit: score from which on a lesion is there.
        loop_mm: disagreement with the way through the visit before; NaN where there is none.
    """
    name = entry.lesion.name
    missing = Finding(name, number, OUTSIDE, np.full(3, np.nan), 0.0, place.cycle_mm, loop_mm=loop_mm)
    if not place.in_view:
        return Judged(replace(missing, reason=f"{name} lies outside what {follow_up.name} shows."))
    carried = carried_contour(entry, place, 14.0)
    if carried is None:
        text = f"The contour of {name} vanished on the way."
        return Judged(replace(missing, state=NOT_FOUND, position=place.point, reason=text))
    image = patch(follow_up, carried.grid)
    alike = _alike(entry, carried, place)
    fit = fit_contour(image, carried, entry.fit.levels, alike=alike)
    agreement = 1.0 if not loop_mm > LOOP_MM else float(np.exp(1 - loop_mm / LOOP_MM))
    score = presence(entry.fit, fit, place)
    parts, together = _parts(entry, image, carried, place)
    split = len(parts) > 1 and together >= limit
    score = agreement * (max(score, together) if split else score)
    finding = replace(missing, position=place.point, score=score)
    if entry.measurement is not None:
        finding = replace(finding, carried=as_labels(carried, output_grid(follow_up.grid, carried.grid)))
    if not place.sure:
        text = f"{follow_up.name} could not be aligned with the baseline; check the place of {name}."
        return Judged(replace(finding, state=NOT_FOUND, reason=text), None, carried)
    outlined = entry.is_point or entry.lesion.mask is not None
    finding = replace(finding, error90_mm=error90(score, outlined) if score >= limit else _BOUND_EMPTY)
    if score < limit:
        return Judged(_absent(finding, place, agreement), None, carried)
    if split:
        union = carried.with_tensor(torch.stack(parts).any(0).float()[None, None])
        return Judged(_split(entry, finding, follow_up, union, parts), union, carried)
    contour = Volume(suggest_contour(image, fit, alike).float()[None, None], image.grid)
    return Judged(_present(entry, finding, follow_up, contour, fit), contour, carried)


def _alike(entry: Baseline, carried: Volume, place: Place) -> torch.Tensor | None:
    """What already looked like the lesion beside it at the baseline, carried to the follow-up."""
    if entry.around is None or place.backward is None:
        return None
    before = place.backward.warp_volume(entry.around, carried.grid)
    return alike_beside(before, carried, entry.fit.levels)


def carried_contour(entry: Baseline, place: Place, reach_mm: float) -> Volume | None:
    """The baseline's contour (soft, float) around its place in the other image; None where nothing is left of it."""
    assert place.backward is not None
    extent = entry.contour.grid.extent.max() / 2
    rough = Grid.covering(place.point[None], min(entry.contour.grid.spacing), margin_mm=1.3 * float(extent))
    soft = place.backward.warp_volume(entry.contour, rough, background=0.0)
    if not bool((soft.tensor > 0.5).any()):
        return None
    return place.backward.warp_volume(entry.contour, neighborhood(soft, reach_mm), background=0.0)


def error90(score: float, outlined: bool = True) -> float:
    """mm: nine of ten lesions found with such a score lie nearer to where they were found.

    Args:
        outlined: the lesion came as a segment or a point; else its contour was found in its box or at its diameters.
    """
    scores, bounds = np.asarray(_BOUNDS_FOUND).T
    return float(np.interp(score, scores, bounds)) + (0.0 if outlined else _BOUND_CONTOUR_MM)


def _parts(entry: Baseline, image: Volume, carried: Volume, place: Place) -> tuple[list[torch.Tensor], float]:
    """Separate parts at the place, and how surely they together are the lesion."""
    parts = separate_parts(image, carried, entry.fit.levels)
    if not parts:
        return [], 0.0
    union = carried.with_tensor(torch.stack(parts).any(0).float()[None, None])
    return parts, presence(entry.fit, fit_contour(image, union, scales=(1.0,), shift_mm=0.0), place, _PRESENCE_PARTS)


def _absent(finding: Finding, place: Place, agreement: float) -> Finding:
    """Gone where the place is sure, else not found."""
    name = finding.lesion
    if agreement < 1:
        text = (
            f"The way through the visit before leads {finding.loop_mm:.0f} mm away from this place of {name}; check it."
        )
        return replace(finding, state=NOT_FOUND, reason=text)
    if place.apart_mm > _APART_MM and place.cycle_mm <= _BACK_MM:
        text = f"Two ways of finding the place of {name} lie {place.apart_mm:.0f} mm apart; check it."
        return replace(finding, state=NOT_FOUND, reason=text)
    if finding.score >= GONE_SCORE:
        text = f"What stands out at the place of {name} is not surely the lesion; check it."
        return replace(finding, state=NOT_FOUND, reason=text)
    text = f"Nothing at the place of {name} stands out as it did at the baseline."
    return replace(finding, state=GONE, reason=text)


def _present(entry: Baseline, finding: Finding, follow_up: Volume, contour: Volume, fit: Fit) -> Finding:
    """Position, contour, size and what became of it."""
    size = size_in(contour, follow_up.grid)
    error = expected_error(size, follow_up.grid)
    finding = replace(finding, state=size_state(entry.size, entry.error, size, error))
    if entry.measurement is None:
        text = f"{entry.lesion.name} came without a size; its change is that of what stands out at the place."
        return replace(finding, position=finding.position + fit.shift, reason=text)
    return replace(
        finding,
        position=centroid(contour),
        suggested=as_labels(contour, output_grid(follow_up.grid, contour.grid)),
        measurement=size,
        error=error,
    )


def _split(entry: Baseline, finding: Finding, follow_up: Volume, union: Volume, parts: list[torch.Tensor]) -> Finding:
    """The fragments, each measured; RECIST 1.1 adds their diameters."""
    text = f"{finding.lesion} has fallen into {len(parts)} parts; their diameters are added."
    finding = replace(finding, state=SPLIT, position=centroid(union), reason=text)
    if entry.measurement is None:
        return finding
    masks = [union.with_tensor(part.float()[None, None]) for part in parts]
    sizes = [size_in(mask, follow_up.grid) for mask in masks]
    errors = [expected_error(size, follow_up.grid) for size in sizes]
    return replace(
        finding,
        suggested=as_labels(union, output_grid(follow_up.grid, union.grid)),
        measurement=Measurement(
            sum(size.longest_mm for size in sizes),
            sum(size.short_axis_mm for size in sizes),
            sum(size.volume_ml for size in sizes),
            sizes[0].longest_points,
            sizes[0].short_axis_points,
        ),
        error=errors[0].added(errors[1:]),
        fragments=tuple((size, centroid(mask)) for size, mask in zip(sizes, masks, strict=True)),
    )


def presence(before: Fit, after: Fit, place: Place, more: float = 0.0) -> float:
    """How surely the lesion is there, in [0, 1], from how it stood out at the baseline and what stands out now.

    A logistic regression on lesions that stayed and lesions that were removed: what is there stands out as much as
    before, at the lesion's own level and with its contrast, and lies where the surroundings lead, at a similar size.
    ``more``: logarithm of the likelihood ratio of what else speaks for it.
    """
    return float(1 / (1 + np.exp(-np.dot(_PRESENCE, evidence(before, after, place)) - more)))


def evidence(before: Fit, after: Fit, place: Place) -> tuple[float, ...]:
    """What :func:`presence` weighs."""
    contrast = before.levels.contrast
    return (
        1.0,
        after.match,
        min(after.match / max(before.match, 0.1), 1.3),
        float(np.clip(after.levels.contrast / contrast, 0.0, 1.2)) if abs(contrast) > 1 else 0.0,
        min(float(np.linalg.norm(after.shift)) / 4.0, 2.0) ** 2,
        abs(float(np.log(after.scale))),
        min(abs(after.levels.inside - before.levels.inside) / max(abs(contrast), LEAST_CONTRAST), 2.0),
    )
