"""Lesion tracking: each baseline lesion located, judged and measured in every follow-up.

A lesion's place is guessed by an affine map of the anatomy around it (points matched both ways by embeddings,
align/local_maps.py) and by its own stable-point match, then refined by registering the neighborhood of the two images
with the lesion itself left out, so that growth or loss cannot pull the surroundings along. The carried contour is
fitted to the follow-up (contour.py); whether something with the lesion's contrast is there decides between found and
uncertain. Nothing here is a diagnosis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..align.by_embeddings import CONFIDENT, pair_affine
from ..align.pairs import matched_pairs
from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..errors import InputError
from ..landmarks.matching import match_points
from ..progress import Progress, stage
from ..space.grid import Grid
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume, check_volume
from ..weights.models import SamModel, load_sam
from .baseline import Baseline, describe
from .contour import LEAST_CONTRAST, Fit, fit_contour, neighborhood, suggest_contour
from .findings import FOUND, NOT_IN_VIEW, UNCERTAIN, Finding, TrackingResult
from .lesion import Lesion
from .measurement import centroid, measure_lesion
from .merging import joined
from .neighborhood import local_guide, register_neighborhood
from .patches import as_labels, output_grid, patch

# From this score on a lesion counts as found: calibrated on cases apart from those of the tracking benchmark.
MINIMUM_SCORE = 0.5
# Weights of presence(); fitted to invented lesions in CTs that the tracking benchmark does not evaluate.
_PRESENCE = (-0.9, 2.4, 2.2, 1.0, -2.2, -0.95, -1.65)


def track_lesions(
    baseline: Volume,
    lesions: Sequence[Lesion],
    follow_ups: Sequence[Volume],
    *,
    minimum_score: float | None = None,
    weights: SamModel | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> TrackingResult:
    """Find the baseline's lesions in every follow-up.

    Args:
        lesions: points, segments, boxes or diameters in the baseline, with unique names.
        follow_ups: later images of the same patient, any geometry and field of view.
        minimum_score: a lesion counts as found from this score on, in [0, 1]; default a calibrated one.
        weights: network for the embeddings; default the shipped one.

    Raises:
        InputError: unusable volumes or weights, a lesion outside the baseline, or names that repeat.
        Cancelled: by ``progress``.
    """
    _check(baseline, lesions, follow_ups)
    limit = MINIMUM_SCORE if minimum_score is None else minimum_score
    model = weights if isinstance(weights, SamModel) else load_sam(weights)
    template = embed_cached(baseline, model, device=device, progress=progress)
    known = [describe(baseline, lesion) for lesion in lesions]
    findings: list[Finding] = []
    for number, follow_up in enumerate(follow_ups):
        query = embed_cached(follow_up, model, device=device, progress=progress)
        share = 1.0 / len(follow_ups)
        report = stage(progress, "tracking", number * share, (number + 1) * share)
        findings += _track(baseline, template, known, follow_up, query, number, limit, report)
    measured = {entry.lesion.name: entry.measurement for entry in known}
    return TrackingResult(
        tuple(lesions), tuple(findings), measured, (baseline.name, *(volume.name for volume in follow_ups))
    )


def _check(baseline: Volume, lesions: Sequence[Lesion], follow_ups: Sequence[Volume]) -> None:
    for volume in (baseline, *follow_ups):
        check_volume(volume)
    if not lesions:
        raise InputError("There is no lesion to track; give at least one.")
    names = [lesion.name for lesion in lesions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two lesions are called {twice}; give each its own name.")
    for lesion in lesions:
        point = np.asarray(lesion.point, dtype=float)
        if point.shape != (3,) or not np.isfinite(point).all() or not baseline.grid.contains(point[None])[0]:
            raise InputError(f"{lesion.name} lies outside {baseline.name}; check that they belong together.")


def _track(
    baseline: Volume,
    template: SamEmbedding,
    known: list[Baseline],
    follow_up: Volume,
    query: SamEmbedding,
    number: int,
    limit: float,
    report: Callable[[float], None],
) -> list[Finding]:
    """All lesions in one follow-up."""
    guide, details = pair_affine(template, query)
    sure = details["confidence"] >= CONFIDENT
    report(0.15)
    pairs = matched_pairs(template, query, near=guide)[0] if sure else None
    report(0.25)
    matches = match_points(template, np.stack([entry.lesion.point for entry in known]), query)
    report(0.3)
    findings = []
    for row, entry in enumerate(known):
        start = local_guide(guide, pairs, entry.lesion.point)
        if not sure:
            shift = matches.points[row] - start.map_points(entry.lesion.point[None])[0]
            start = AffineTransform(start.matrix, start.translation + shift)
        place = start.map_points(entry.lesion.point[None])[0]
        name = entry.lesion.name
        cycle = float(matches.cycle_mm[row])
        if sure and not follow_up.grid.contains(place[None])[0]:
            nowhere = np.full(3, np.nan)
            text = f"{name} lies outside what {follow_up.name} shows."
            findings.append(Finding(name, number, NOT_IN_VIEW, nowhere, 0.0, cycle, reason=text))
        else:
            there = register_neighborhood(baseline, template, entry, follow_up, place, start)
            findings.append(_judge(entry, follow_up, there, number, cycle, limit, sure))
        report(0.3 + 0.7 * (row + 1) / len(known))
    return joined(known, findings, follow_up.grid)


def _judge(
    entry: Baseline,
    follow_up: Volume,
    maps: tuple[Transform, Transform],
    number: int,
    cycle: float,
    limit: float,
    sure: bool,
) -> Finding:
    """Carry the contour, look whether the lesion is there, and say so."""
    forward, backward = maps
    lesion = entry.lesion
    place = forward.map_points(lesion.point[None])[0]
    if not follow_up.grid.contains(place[None])[0]:
        text = f"{lesion.name} lies outside what {follow_up.name} shows."
        return Finding(lesion.name, number, NOT_IN_VIEW, np.full(3, np.nan), 0.0, cycle, reason=text)
    extent = entry.contour.grid.extent.max() / 2
    rough = Grid.covering(place[None], min(entry.contour.grid.spacing), margin_mm=1.3 * float(extent))
    soft = backward.warp_volume(entry.contour, rough, background=0.0)
    if not bool((soft.tensor > 0.5).any()):
        return Finding(lesion.name, number, UNCERTAIN, place, 0.0, cycle, reason=f"{lesion.name} vanished on the way.")
    grid = neighborhood(soft, 14.0)
    image = patch(follow_up, grid)
    carried = backward.warp_volume(entry.contour, grid, background=0.0)
    fit = fit_contour(image, carried, entry.fit.levels)
    score = presence(entry.fit, fit)
    has_contour = entry.measurement is not None
    found = score >= limit and sure
    output = output_grid(follow_up.grid, grid)
    contour = Volume(suggest_contour(image, fit).float()[None, None], grid)
    position = place
    suggested = measurement = None
    if found:
        position = place + fit.shift
        if has_contour:
            position = centroid(contour)
            suggested = as_labels(contour, output)
            measurement = measure_lesion(contour, follow_up.grid)
    reason = "" if found else f"Nothing at the place of {lesion.name} stands out as it did at the baseline."
    if not sure:
        reason = f"{follow_up.name} could not be aligned with the baseline; check the place of {lesion.name}."
    return Finding(
        lesion.name,
        number,
        FOUND if found else UNCERTAIN,
        position,
        score,
        cycle,
        as_labels(carried, output) if has_contour else None,
        suggested,
        measurement,
        reason,
    )


def presence(before: Fit, after: Fit) -> float:
    """How surely the lesion is there, in [0, 1], from how it stood out at the baseline and what stands out now.

    A logistic regression on lesions that stayed and lesions that were removed: what is there stands out as much as
    before, at the lesion's own level and with its contrast, and lies where the surroundings lead, at a similar size.
    """
    contrast = before.levels.contrast
    features = (
        1.0,
        after.match,
        min(after.match / max(before.match, 0.1), 1.3),
        float(np.clip(after.levels.contrast / contrast, 0.0, 1.2)) if abs(contrast) > 1 else 0.0,
        min(float(np.linalg.norm(after.shift)) / 4.0, 2.0) ** 2,
        abs(float(np.log(after.scale))),
        min(abs(after.levels.inside - before.levels.inside) / max(abs(contrast), LEAST_CONTRAST), 2.0),
    )
    return float(1 / (1 + np.exp(-np.dot(_PRESENCE, features))))
