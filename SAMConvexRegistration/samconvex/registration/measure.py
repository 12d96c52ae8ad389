"""The report's figures of quality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from ..report import metrics
from ..space.transforms import Transform
from ..space.volume import Volume, resample

# Below this share of the body seen in both images the user is warned.
_LITTLE_OVERLAP_PERCENT = 50.0


def _overlap_percent(fixed: Volume, moving: Volume, forward: Transform, body: Volume) -> float:
    """Share of the fixed image's body (or mask) where the moving image has data."""
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    points = points[fixed.grid.contains(points)]
    points = points[:: max(1, len(points) // 50_000)]
    return 100.0 * float(forward.reaches(moving, points).mean()) if len(points) else 0.0


def measure(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    forward: Transform,
    backward: Transform,
    jacobian: Volume | None,
    body: Volume,
    fixed_labels: Volume | None,
    moving_labels: Volume | None,
    fixed_points: np.ndarray | None,
    moving_points: np.ndarray | None,
    warnings: list[str],
    report: Callable[[float], None],
) -> dict:
    """The report's figures of quality."""
    voxels = body.tensor[0, 0].nonzero().flip(1).numpy()
    sampled = body.grid.voxels_to_points(voxels[:: max(1, len(voxels) // 5000)])
    measured: dict = {"inverse_consistency_mm": metrics.inverse_consistency(forward, backward, sampled)}
    overlap = _overlap_percent(fixed, moving, forward, body)
    measured["overlap_percent"] = overlap
    if overlap < _LITTLE_OVERLAP_PERCENT:
        warnings.append(
            f"{moving.name} shows only {overlap:.0f} % of what {fixed.name} shows of the body; beyond the overlap the "
            "warped image is background and the transform a smooth continuation."
        )
    if jacobian is None:
        measured["regularity"] = {"folding_percent": 0.0, "sdlogj": 0.0, "sdlogj_learn2reg": 0.0}
    else:
        inside = resample(body, jacobian.grid, mode="nearest").tensor > 0
        measured["regularity"] = metrics.regularity_of(jacobian.tensor, inside)
    report(0.3)
    if fixed_labels is not None and moving_labels is not None:
        for labels, image in ((fixed_labels, fixed), (moving_labels, moving)):
            if labels.grid != image.grid:
                warnings.append(f"{labels.name} is on another grid than {image.name}; it was resampled by position.")
        reference = resample(fixed_labels, fixed.grid, mode="nearest")
        common = metrics.common_labels(reference, moving_labels)
        if not common:
            warnings.append(f"{fixed_labels.name} and {moving_labels.name} share no label; no overlap was measured.")
        for name, transform in (("dice_initial", start), ("dice_final", forward)):
            scores = metrics.dice(reference, transform.warp_labels(moving_labels, fixed.grid))
            measured[name] = {label: scores.get(label, 0.0) for label in common}
            report(0.7 if name == "dice_initial" else 0.95)
    if fixed_points is not None and moving_points is not None:
        if len(fixed_points) != len(moving_points):
            raise InputError(
                f"{len(fixed_points)} fixed points but {len(moving_points)} moving points; they must correspond."
            )
        measured["tre_initial_mm"] = metrics.target_registration_error(start, fixed_points, moving_points)
        measured["tre_final_mm"] = metrics.target_registration_error(forward, fixed_points, moving_points)
    for points, image in ((fixed_points, fixed), (moving_points, moving)):
        if points is not None and len(points):
            outside = int((~image.grid.contains(points)).sum())
            if outside:
                warnings.append(f"{outside} of {len(points)} points lie outside {image.name}.")
    return measured
