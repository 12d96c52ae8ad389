"""Registration without a preferred direction: both directions are solved and meet halfway.

The mean of two maps, one each way, is chosen so that exchanging the images gives the inverse map.
"""

from __future__ import annotations

import numpy as np

from .field import DisplacementField
from .pyramid import symmetrized
from .transforms import AffineTransform, Transform

_ROUNDS = 10


def mean_affine(there: AffineTransform, back: AffineTransform) -> AffineTransform:
    """The map A (A^-1 B^-1)^(1/2), halfway between ``there`` (A) and the inverse of ``back`` (B).

    Exchanging the two gives the inverse; the mean of two rigid maps is rigid.
    """
    first, second = _homogeneous(there), np.linalg.inv(_homogeneous(back))
    mean = first @ _square_root(np.linalg.inv(first) @ second)
    return AffineTransform(mean[:3, :3], mean[:3, 3])


def disagreement_mm(there: AffineTransform, back: AffineTransform, points: np.ndarray) -> float:
    """How far (N, 3) LPS points end from where they began on the way there and back, at most."""
    return float(np.linalg.norm(back.map_points(there.map_points(points)) - points, axis=1).max())


def inverse_consistent(
    forward: DisplacementField, backward: DisplacementField, initial: Transform
) -> DisplacementField:
    """The forward field u of the pair that agrees with both directions and is inverted by the other.

    Args:
        forward: u of T(p) = A(p + u(p)), A = ``initial``; zero at the border of its grid.
        backward: w of S(q) = A^-1(q + w(q)), in the moving image's frame, zero at the border of its grid.

    Returns:
        u on ``forward``'s grid, after the mutual correction of u and of w carried to the fixed frame, A^-1 (id + w) A.
    """
    carried = Transform((*initial.parts, backward, *initial.inverse().parts)).displacement_field(forward.grid)
    return symmetrized(forward, carried, _ROUNDS)


def _homogeneous(transform: AffineTransform) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = transform.matrix, transform.translation
    return matrix


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """Principal square root by the product form of Denman and Beavers' iteration (1976)."""
    root, other = matrix, np.eye(len(matrix))
    for _ in range(30):
        root, other = 0.5 * (root + np.linalg.inv(other)), 0.5 * (other + np.linalg.inv(root))
    return root
