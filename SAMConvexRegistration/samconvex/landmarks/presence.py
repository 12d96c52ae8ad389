"""Is a matched point there at all? What speaks for and against it, and the probability that the answer is right.

A point that the query does not show has a best match too: the score is lower, the way back leads elsewhere, and the
level in the body and the affine map of both embeddings place it beyond the image. A logistic regression of these,
fitted on cut images of patients whose landmarks are known, weighs them.
"""

from __future__ import annotations

import numpy as np

from ..anatomy.embedding import SamEmbedding
from ..anatomy.level import Anatomy, anatomy_of, shipped_reference
from ..space.grid import Grid
from ..space.transforms import AffineTransform

NAMES = ("score", "cycle_mm", "beyond_image_mm", "beyond_level_mm")
# Whether more of it speaks for a point that is there.
SIGNS = np.array([1.0, -1.0, -1.0, -1.0])
# Fitted by Testing/benchmarks/studies/presence.py on 48 pairs of the embedding's validation patients, with the weights
# before the last part of their training; with those of now 15 of 648 absent points (2.3 %) were called found, 5 of 726
# present ones (0.7 %) lost. A new fit gained nothing on queries that it had not seen: 2.8 % and 0.7 %.
WEIGHTS, INTERCEPT = (7.1451, -0.0741, -0.1075, -0.0362), -5.11
# Found from here on, if score and cycle error are within their limits too.
LEAST = 0.5
# Farther inside or outside tells no more, mm.
_DEEPEST_MM, _FARTHEST_MM, _CYCLE_MM = 40.0, 80.0, 40.0


def evidence(
    template: SamEmbedding,
    query: SamEmbedding,
    guide: AffineTransform | None,
    points: np.ndarray,
    score: np.ndarray,
    cycle_mm: np.ndarray,
) -> np.ndarray:
    """(N, 4) in the order of :data:`NAMES`; what is not known counts as far inside the image.

    Args:
        guide: affine map of template to query points; None where it is not sure.
        points: (N, 3) LPS mm in the template.
        score, cycle_mm: (N,) of the answers.
    """
    deep = np.full(len(points), -_DEEPEST_MM)
    image = deep if guide is None else beyond_image(query.grid, guide.map_points(points))
    level = beyond_levels(points, anatomy_of(template), anatomy_of(query))
    return np.stack(
        [
            np.asarray(score, float),
            np.minimum(cycle_mm, _CYCLE_MM),
            np.clip(image, -_DEEPEST_MM, _FARTHEST_MM),
            deep if level is None else np.clip(level, -_DEEPEST_MM, _FARTHEST_MM),
        ],
        1,
    )


def probability(evidence: np.ndarray) -> np.ndarray:
    """(N,) that points with such evidence (N, 4) are there."""
    return 1 / (1 + np.exp(-np.clip(evidence @ np.array(WEIGHTS) + INTERCEPT, -30, 30)))


def lies_beyond(evidence: np.ndarray) -> np.ndarray:
    """(N,) bool: the map or the levels place the point beyond what the query shows."""
    return (evidence[:, 2] > 0) | (evidence[:, 3] > 0)


def is_fitted_for(embedding: SamEmbedding) -> bool:
    """True for the weights whose scores the regression knows: those of the shipped reference of levels."""
    reference = shipped_reference()
    return reference is not None and reference.network == embedding.network


def beyond_image(grid: Grid, points: np.ndarray) -> np.ndarray:
    """(N,) mm from points (N, 3) to the border of the image; negative inside."""
    spacing, size = np.asarray(grid.spacing), np.asarray(grid.size)
    voxels = grid.points_to_voxels(points)
    outside = np.maximum(-0.5 - voxels, voxels - (size - 0.5)) * spacing
    away = np.linalg.norm(np.maximum(outside, 0), axis=1)
    return np.where(away > 0, away, outside.max(1))


def beyond_levels(points: np.ndarray, shown_in: Anatomy, asked_in: Anatomy) -> np.ndarray | None:
    """(N,) mm that the levels of points of one image lie beyond those that the other shows; negative within.

    None where one of the two is not clear.
    """
    if not (shown_in.is_clear and asked_in.is_clear):
        return None
    levels, (low, high) = shown_in.levels_of(points), asked_in.span_mm
    return np.maximum(low - levels, levels - high)
