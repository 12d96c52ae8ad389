"""The report's figures of quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..report import metrics
from ..space.transforms import Transform
from ..space.volume import Volume, resample
from .finish import Maps

# Below this share of the body seen in both images the user is warned.
_LITTLE_OVERLAP_PERCENT = 50.0


def _overlap_percent(fixed: Volume, moving: Volume, forward: Transform, body: Volume) -> float:
    """Share of the fixed image's body (or mask) where the moving image has data."""
    points = body.points()
    points = points[fixed.grid.contains(points)]
    points = points[:: max(1, len(points) // 50_000)]
    return 100.0 * float(forward.reaches(moving, points).mean()) if len(points) else 0.0


@dataclass(frozen=True)
class Truth:
    """What is known of a pair: label maps on any grid, corresponding points (N, 3) LPS mm."""

    fixed_labels: Volume | None = None
    moving_labels: Volume | None = None
    fixed_points: np.ndarray | None = None
    moving_points: np.ndarray | None = None


def measure(
    fixed: Volume,
    moving: Volume,
    maps: Maps,
    body: Volume,
    truth: Truth,
    warnings: list[str],
    report: Callable[[float], None],
) -> dict:
    """The report's figures of quality."""
    points = body.points()
    sampled = points[:: max(1, len(points) // 5000)]
    measured: dict = {"inverse_consistency_mm": metrics.inverse_consistency(maps.forward, maps.backward, sampled)}
    overlap = _overlap_percent(fixed, moving, maps.forward, body)
    measured["overlap_percent"] = overlap
    if overlap < _LITTLE_OVERLAP_PERCENT:
        warnings.append(
            f"{moving.name} shows only {overlap:.0f} % of what {fixed.name} shows of the body; beyond the overlap the "
            "warped image is background and the transform a smooth continuation."
        )
    if maps.jacobian is None:
        measured["regularity"] = {"folding_percent": 0.0, "sdlogj": 0.0, "sdlogj_learn2reg": 0.0}
    else:
        inside = resample(body, maps.jacobian.grid, mode="nearest").tensor > 0
        measured["regularity"] = metrics.regularity_of(maps.jacobian.tensor, inside)
    report(0.3)
    if truth.fixed_labels is not None and truth.moving_labels is not None:
        measured |= _overlaps(fixed, maps, truth.fixed_labels, truth.moving_labels, warnings, report)
    if truth.fixed_points is not None and truth.moving_points is not None:
        pairs = (truth.fixed_points, truth.moving_points)
        measured["tre_initial_mm"] = metrics.target_registration_error(maps.start, *pairs)
        measured["tre_final_mm"] = metrics.target_registration_error(maps.forward, *pairs)
    return measured


def _overlaps(
    fixed: Volume,
    maps: Maps,
    fixed_labels: Volume,
    moving_labels: Volume,
    warnings: list[str],
    report: Callable[[float], None],
) -> dict:
    """Dice and surface distances of every common label before and after."""
    reference = resample(fixed_labels, fixed.grid, mode="nearest")
    common = metrics.common_labels(reference, moving_labels)
    if not common:
        warnings.append(f"{fixed_labels.name} and {moving_labels.name} share no label; no overlap was measured.")
    found: dict = {}
    for moment, transform, done in (("initial", maps.start, 0.65), ("final", maps.forward, 0.95)):
        warped = transform.warp_labels(moving_labels, fixed.grid)
        scores = metrics.dice(reference, warped)
        found[f"dice_{moment}"] = {label: scores.get(label, 0.0) for label in common}
        found[f"surface_{moment}_mm"] = metrics.surface_distances(reference, warped, common)
        report(done)
    return found
