"""One measurement for all methods: overlap, distances and regularity of a fixed-to-moving transform."""

from __future__ import annotations

import numpy as np
from samconvex import Grid
from samconvex.report import metrics
from samconvex.space.transforms import AffineTransform, Transform

from ..data.pairs import Case


def assess(case: Case, transform: Transform, grid: Grid) -> dict:
    """Figures of ``transform`` on ``case``; regularity of its non-affine part, sampled on ``grid`` for everybody.

    Organs that only one of the images shows do not count. Distances in mm.
    """
    figures: dict = {}
    if case.labels is not None:
        fixed, moving = case.labels
        # By nearest neighbor, as all tables so far; beside it the labels as users get them.
        warped, shared = transform.warp_nearest(moving, fixed), transform.warp_labels(moving, fixed)
        common = metrics.common_labels(fixed, moving)
        overlap = metrics.dice(fixed, warped)
        distances = metrics.surface_distances(fixed, warped, common)
        figures["dice"] = {str(label): overlap.get(label, 0.0) for label in common}
        figures["dice_mean"] = float(np.mean(list(figures["dice"].values())))
        smoother = metrics.dice(fixed, shared)
        figures["dice_of_shares_mean"] = float(np.mean([smoother.get(label, 0.0) for label in common]))
        # A lost organ has no distance; its Dice of 0 says so.
        figures["hd95_mm"] = {str(label): value["hd95"] for label, value in distances.items()}
        if figures["hd95_mm"]:
            figures["hd95_mean_mm"] = float(np.mean(list(figures["hd95_mm"].values())))
    if case.points is not None:
        figures["tre_mm"] = metrics.summary(metrics.target_registration_error(transform, *case.points))
    if case.truth is not None and case.truth_points is not None:
        error = np.linalg.norm(transform.map_points(case.truth_points) - case.truth(case.truth_points), axis=1)
        figures["known_error_mm"] = metrics.summary(error)
    deformation = Transform(tuple(part for part in transform.parts if not isinstance(part, AffineTransform)))
    if deformation.parts:
        figures |= metrics.regularity(deformation.displacement_field(grid))
    return figures
