"""Rotations, similarities and other linear maps, fitted, averaged and limited."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from .transforms import AffineTransform, Transform

SCALE_LIMITS = (0.6, 1.6)


def polar(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and symmetric stretch (both (..., 3, 3)) of matrices with positive determinant."""
    left, _, right = np.linalg.svd(matrix)
    rotation = left @ right
    return rotation, np.swapaxes(rotation, -1, -2) @ matrix


def limited(matrix: np.ndarray, model: str = "affine") -> np.ndarray:
    """The nearest matrix of the model with stretches within ``SCALE_LIMITS`` and no reflection."""
    left, stretches, right = np.linalg.svd(matrix)
    if np.linalg.det(left @ right) < 0:
        left[:, 2] *= -1
    if model == "rigid":
        stretches = np.ones(3)
    elif model == "similarity":
        stretches = np.full(3, stretches.mean())
    return left @ np.diag(np.clip(stretches, *SCALE_LIMITS)) @ right


def rigid_fit(points: np.ndarray, images: np.ndarray) -> AffineTransform:
    """The rotation and translation nearest to points -> images, both (N, 3), in the mean square (Kabsch, 1976)."""
    center, target = points.mean(0), images.mean(0)
    left, _, right = np.linalg.svd((images - target).T @ (points - center))
    turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    return AffineTransform(turn, target - turn @ center)


def turn(transform: Transform, points: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) next to ``transform`` around ``points`` (N, 3), not in a plane; identity where it mirrors."""
    mapped = transform.map_points(points)
    linear = np.linalg.lstsq(points - points.mean(0), mapped - mapped.mean(0), rcond=None)[0].T
    left, _, right = np.linalg.svd(linear)
    rotation = left @ right
    return rotation if np.linalg.det(rotation) > 0 else np.eye(3)


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


def rotation(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """About x (left), y (posterior) and z (superior), degrees."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians([pitch, roll, yaw])):
        turn = np.eye(3)
        j, k = (axis + 1) % 3, (axis + 2) % 3
        turn[j, j] = turn[k, k] = np.cos(angle)
        turn[k, j] = np.sin(angle)
        turn[j, k] = -turn[k, j]
        result = turn @ result
    return result


@lru_cache(maxsize=1)
def axis_rotations() -> dict[tuple[int, int, int], np.ndarray]:
    """The 24 rotations (3, 3) that carry axes to axes, by pitch, roll and yaw in degrees; the identity first."""
    found: dict[bytes, tuple[tuple[int, int, int], np.ndarray]] = {}
    quarters = (0, 90, 180, 270)
    for pitch, roll, yaw in sorted(product(quarters, quarters, quarters), key=sum):
        matrix = np.round(rotation(pitch, roll, yaw)) + 0.0
        found.setdefault(matrix.tobytes(), ((pitch, roll, yaw), matrix))
    return dict(found.values())


def nearest_axis_rotation(matrix: np.ndarray) -> np.ndarray:
    """That of :func:`axis_rotations` next to a linear map (3, 3)."""
    return max(axis_rotations().values(), key=lambda turn: float((turn * matrix).sum()))


def similarity_from_points(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarities (Umeyama, 1991) of (..., K, 3) points: matrices (..., 3, 3), translations (..., 3)."""
    mean_s, mean_t = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    s, t = source - mean_s, target - mean_t
    covariance = np.swapaxes(t, -1, -2) @ s
    u, values, vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(u @ vt))
    flip = np.stack([np.ones_like(sign), np.ones_like(sign), sign], -1)
    rotation = (u * flip[..., None, :]) @ vt
    scale = (values * flip).sum(-1) / np.maximum((s**2).sum((-1, -2)), 1e-9)
    matrix = scale[..., None, None] * rotation
    return matrix, mean_t[..., 0, :] - np.einsum("...ij,...j->...i", matrix, mean_s[..., 0, :])
