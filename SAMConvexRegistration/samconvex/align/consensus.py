"""Linear maps on which most of the matched points agree."""

from __future__ import annotations

import numpy as np

from ..space.linear import similarity_from_points
from ..space.transforms import AffineTransform
from .pairs import PointPairs

INLIER_MM = 15.0


def ransac_similarity(
    pairs: PointPairs, random: np.random.Generator, *, samples: int = 3000, limit_mm: float = INLIER_MM
) -> tuple[AffineTransform | None, np.ndarray]:
    """The similarity that most pairs agree with, and which ones do; None with too few pairs.

    Mirrored, tiny, huge or steeply turned candidates are no patients and do not count.
    """
    count = len(pairs)
    if count < 6:
        return None, np.zeros(count, bool)
    if count <= 64:
        chosen = np.argsort(random.random((samples, count)), 1)[:, :4]
    else:
        chosen = random.integers(0, count, (samples, 4))
    matrices, shifts = similarity_from_points(pairs.fixed[chosen], pairs.moving[chosen])
    scale = np.cbrt(np.abs(np.linalg.det(matrices)))
    cosine = (np.trace(matrices, axis1=1, axis2=2) / np.maximum(scale, 1e-9) - 1) / 2
    plausible = (scale > 0.6) & (scale < 1.6) & (cosine > np.cos(np.radians(60)))
    matrices, shifts = matrices[plausible], shifts[plausible]
    if not len(matrices):
        return None, np.zeros(count, bool)
    best, transform = -1.0, AffineTransform.identity()
    for start in range(0, len(matrices), 200):
        part = slice(start, start + 200)
        mapped = np.einsum("mij,nj->mni", matrices[part], pairs.fixed) + shifts[part, None]
        distance = np.linalg.norm(mapped - pairs.moving, axis=2)
        support = np.clip(1 - (distance / limit_mm) ** 2, 0, None).sum(1)
        row = int(support.argmax())
        if support[row] > best:
            best, transform = float(support[row]), AffineTransform(matrices[start + row], shifts[start + row])
    inlier = _residual(transform, pairs) < limit_mm
    for _ in range(3):
        if inlier.sum() < 4:
            break
        transform = AffineTransform(*similarity_from_points(pairs.fixed[inlier], pairs.moving[inlier]))
        inlier = _residual(transform, pairs) < limit_mm
    return (transform, inlier) if inlier.sum() >= 6 else (None, inlier)


def _residual(transform: AffineTransform, pairs: PointPairs) -> np.ndarray:
    return np.linalg.norm(transform.map_points(pairs.fixed) - pairs.moving, axis=1)


def reweighted_affine(
    pairs: PointPairs, start: AffineTransform, *, iterations: int = 12, stiffness_mm: float = 25.0
) -> AffineTransform:
    """Affine map by Tukey-weighted least squares, drawn towards ``start`` along directions that the points do not span.

    Args:
        stiffness_mm: spread of points below which ``start``'s matrix prevails.
    """
    transform = start
    for _ in range(iterations):
        residual = _residual(transform, pairs)
        # The spread between patients is real; beyond a few centimeters it is a mismatch, whatever the median says.
        limit = float(np.clip(4.5 * np.median(residual), 12.0, 40.0))
        weight = np.clip(1 - (residual / limit) ** 2, 0, None) ** 2 * pairs.score
        total = weight.sum()
        if total < 1e-6:
            return transform
        center = weight @ pairs.fixed / total
        target = weight @ pairs.moving / total
        x, y = pairs.fixed - center, pairs.moving - target
        normal = (weight[:, None] * x).T @ x + total * stiffness_mm**2 * 0.1 * np.eye(3)
        # Solve for the change against the start's matrix, so that the ridge pulls there and not to zero.
        right = (weight[:, None] * x).T @ (y - x @ start.matrix.T)
        matrix = start.matrix + np.linalg.solve(normal, right).T
        transform = AffineTransform(matrix, target - matrix @ center)
    return transform
