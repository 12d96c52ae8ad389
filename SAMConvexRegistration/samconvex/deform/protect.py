"""Bodies that a deformation must not deform: bone that stays rigid, a lesion that keeps its volume.

The registration is solved as always; then each body gets one simple motion of its own and the field around it follows.
Rigid bodies inside a smooth field are as in Staring et al. (Medical Physics 34, 2007), fitted after the solve instead
of penalized during it: their motion is the least-squares rigid motion of what the solve found (Kabsch).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError
from ..settings.strength import MODES
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.linear import rigid_fit
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume
from .folding import LEAST_VOLUME_RATIO, cell_determinants, without_folds

RESIDUAL_MM = 0.1
# The field around a body turns into its motion over the first width that does not fold.
_BLENDS_MM = (12.0, 18.0, 27.0, 40.0)
# Smaller parts of a label are noise of its drawing, unless they are its largest part.
_SPECK_MM3 = 50.0
_SAMPLED_VOXELS = 3000
_STEP_MM = 0.01


@dataclass(frozen=True)
class _Body:
    """One connected part of a label.

    Attributes:
        label: its value in the mask.
        volume_ml: its size.
        points: (N, 3) LPS mm, corners of (a sample of) its voxels.
        centers: (M, 3) LPS mm, centers of the same voxels.
        low: first z, y, x of ``nodes`` on the field's grid.
        nodes: bool (d, h, w), samples of all cells that the body touches.
    """

    label: int
    volume_ml: float
    points: np.ndarray
    centers: np.ndarray
    low: np.ndarray
    nodes: np.ndarray


def protect(
    deformation: DisplacementField,
    initial: Transform,
    mask: Volume,
    mode: str = "rigid",
    report: Callable[[float], None] | None = None,
) -> tuple[DisplacementField, list[dict]]:
    """Give each connected part of each label of ``mask`` a motion that does not deform it.

    The whole map is T(p) = initial(p + u(p)). Guaranteed, where bodies are two cells of the field's grid apart:

    - "rigid": T on a body is the rigid motion nearest to T before, in the mean square over its voxels. All samples of
      all cells that the body touches lie on that motion, so it holds between the samples too (with a linear
      ``initial``, the trilinear field represents it exactly).
    - "volume": T on a body is T before, scaled about the body's moved centroid so that the mean Jacobian determinant
      over the body is 1: its volume stays, its shape may change.
    - Around a body the field passes continuously into what it was, over 12 mm (up to 40 mm where it would fold); it
      does not fold anywhere, even where that costs a body its rigidity. ``residual_mm`` then tells.

    Args:
        deformation: u on an identity-direction grid that covers the bodies, free of folds.
        initial: what acts after it.
        mask: whole numbers; every value above 0 is a label. In the fixed image's space, on any grid.
        mode: "rigid" or "volume".
        report: receives the finished fraction; may raise Cancelled.

    Returns:
        The field on the same grid, and for every body: ``label``, ``volume_ml``, ``deformation_removed_mm`` (root mean
        square of the change of T inside), ``residual_mm`` (largest distance to the body's motion inside) and
        ``volume_change_percent`` (mean Jacobian determinant of T minus 1).

    Raises:
        InputError: an unknown mode, or a mask without a voxel on the grid.
    """
    if mode not in MODES:
        raise InputError(f"There is no protection {mode!r}; choose one of: {', '.join(MODES)}.")
    report = report or (lambda fraction: None)
    grid = deformation.grid
    bodies = list(_bodies(mask, grid))
    if not bodies:
        raise InputError(f"{mask.name} marks nothing to protect; give labels above 0 inside the fixed image.")
    report(0.1)
    before = Transform((deformation, *initial.parts))
    motions = [_motion(before, body, mode) for body in bodies]
    report(0.3)
    keep = torch.zeros(1, 1, *grid.shape, dtype=torch.bool)
    for body in bodies:
        keep[0, 0][_box(body)] |= torch.from_numpy(body.nodes)
    back = initial.inverse()
    for number, blend_mm in enumerate(_BLENDS_MM):
        blended = _blended(deformation, before, back, bodies, motions, blend_mm)
        if float(cell_determinants(blended.tensor, grid).min()) >= LEAST_VOLUME_RATIO:
            break
        report(0.3 + 0.1 * (number + 1))
    blended = without_folds(blended, keep=keep)
    report(0.8)
    after = Transform((blended, *initial.parts))
    return blended, [_record(body, motion, before, after) for body, motion in zip(bodies, motions, strict=True)]


@dataclass(frozen=True)
class _Motion:
    """q -> motion of a body, given where T was: a map of its own points, or a scaling of T's values."""

    of_points: AffineTransform | None = None
    of_values: AffineTransform | None = None

    def target(self, points: np.ndarray, transform: Transform) -> np.ndarray:
        """Where (N, 3) points of the body, or its extension, are to be mapped."""
        if self.of_points is not None:
            return self.of_points.map_points(points)
        assert self.of_values is not None
        return self.of_values.map_points(transform.map_points(points))


def _motion(transform: Transform, body: _Body, mode: str) -> _Motion:
    if mode == "rigid":
        return _Motion(of_points=rigid_fit(body.points, transform.map_points(body.points)))
    center = transform.map_points(body.centers).mean(0)
    scale = float(np.mean(determinants(transform, body.centers))) ** (-1 / 3)
    return _Motion(of_values=AffineTransform.about(center, np.eye(3) * scale, np.zeros(3)))


def determinants(transform: Transform, points: np.ndarray) -> np.ndarray:
    """(N,) Jacobian determinants of the whole map at (N, 3) LPS mm, inside the cells of its fields."""
    columns = []
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = _STEP_MM
        columns.append((transform.map_points(points + step) - transform.map_points(points - step)) / (2 * _STEP_MM))
    return np.linalg.det(np.stack(columns, -1))


def _blended(
    deformation: DisplacementField,
    before: Transform,
    back: Transform,
    bodies: list[_Body],
    motions: list[_Motion],
    blend_mm: float,
) -> DisplacementField:
    """u on the bodies' samples as their motions want it, and around them on the way there.

    Every body pulls with s / (1 - s), where s falls from 1 at its samples to 0 at ``blend_mm``: one body alone mixes as
    (1 - s) u + s u_body, and between several the nearest wins continuously (Shepard's weights).
    """
    grid = deformation.grid
    pull = torch.ones(grid.shape, dtype=torch.float64)
    total = deformation.tensor[0].double().clone()
    reach = int(np.ceil(blend_mm / min(grid.spacing)))
    for body, motion in zip(bodies, motions, strict=True):
        low = np.maximum(body.low - reach, 0)
        high = np.minimum(body.low + body.nodes.shape + reach, grid.shape)
        inside = np.zeros(high - low, np.uint8)
        inside[tuple(slice(a, a + n) for a, n in zip(body.low - low, body.nodes.shape, strict=True))] = body.nodes
        share = torch.from_numpy(1 - _rise(_distance(inside, grid.spacing) / blend_mm))
        weight = share / (1 - share).clamp(min=1e-9)
        places = np.argwhere(weight.numpy() > 0)
        points = grid.voxels_to_points((places + low)[:, ::-1])
        shift = torch.from_numpy(back.map_points(motion.target(points, before)) - points)
        z, y, x = torch.from_numpy((places + low).T)
        weights = weight[tuple(torch.from_numpy(places.T))]
        pull[z, y, x] += weights
        total[:, z, y, x] += weights * shift.T
    return replace(deformation, tensor=(total / pull)[None].to(deformation.tensor))


def _rise(t: np.ndarray) -> np.ndarray:
    """From 0 to 1 over [0, 1], flat at both ends."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _distance(inside: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """(d, h, w) mm to the nearest marked sample."""
    image = sitk.GetImageFromArray(inside)
    image.SetSpacing(spacing)
    signed = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True, insideIsPositive=False)
    return np.where(inside > 0, 0.0, np.maximum(sitk.GetArrayFromImage(signed), 0.0))


def _record(body: _Body, motion: _Motion, before: Transform, after: Transform) -> dict:
    was, now = before.map_points(body.points), after.map_points(body.points)
    return {
        "label": body.label,
        "volume_ml": body.volume_ml,
        "deformation_removed_mm": float(np.sqrt(((now - was) ** 2).sum(1).mean())),
        "residual_mm": float(np.linalg.norm(now - motion.target(body.points, before), axis=1).max()),
        "volume_change_percent": 100 * (float(np.mean(determinants(after, body.centers))) - 1),
    }


def _bodies(mask: Volume, grid: Grid) -> Iterator[_Body]:
    """The connected parts of every label that lie on ``grid``."""
    labels = mask.tensor[0, 0].cpu().numpy()
    voxel_mm3 = float(np.prod(mask.grid.spacing))
    for label in np.unique(labels[labels > 0]):
        low, part = _cropped(labels == label)
        components = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(part.astype(np.uint8)), True))
        numbered = sitk.GetArrayFromImage(components)
        sizes = np.bincount(numbered.ravel())[1:] * voxel_mm3
        for number, size in enumerate(sizes, start=1):
            if number > 1 and size < _SPECK_MM3:
                break
            voxels = (np.argwhere(numbered == number) + low)[:, ::-1]
            body = _body(int(label), voxels, mask.grid, grid)
            if body is not None:
                yield body


def _cropped(marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First z, y, x of the marked voxels, and the box that holds them."""
    ends = []
    for axis in range(3):
        found = np.flatnonzero(marked.any(tuple(a for a in range(3) if a != axis)))
        ends.append((found[0], found[-1] + 1))
    return np.array([first for first, _ in ends]), marked[tuple(slice(*end) for end in ends)]


def _body(label: int, voxels: np.ndarray, source: Grid, grid: Grid) -> _Body | None:
    """A body of ``voxels`` (N, 3; x, y, z) of ``source``; None where it lies outside ``grid``."""
    points = source.voxels_to_points(voxels)
    index = grid.points_to_voxels(points)
    half = 0.5 * np.abs(grid.lps_to_voxel[:3, :3] @ source.voxel_to_lps[:3, :3]).sum(1)
    size = np.array(grid.size)
    on_grid = ((index >= half) & (index <= size - 1 - half)).all(1)
    if not on_grid.any():
        return None
    points, index = points[on_grid], index[on_grid]
    first = np.floor(index - half + 1e-6).astype(int)
    last = np.ceil(index + half - 1e-6).astype(int)
    low, high = first.min(0), last.max(0) + 1
    nodes = np.zeros((high - low)[::-1], bool)
    span = (last - first).max(0)
    for x, y, z in np.ndindex(*(span + 1)):
        place = np.minimum(first + [x, y, z], last) - low
        nodes[place[:, 2], place[:, 1], place[:, 0]] = True
    centers = points[:: max(1, len(points) // _SAMPLED_VOXELS)]
    signs = np.array(list(np.ndindex(2, 2, 2))) - 0.5
    corners = centers[:, None] + signs @ source.voxel_to_lps[:3, :3].T
    volume_ml = len(voxels) * float(np.prod(source.spacing)) / 1000
    return _Body(label, volume_ml, corners.reshape(-1, 3), centers, low[::-1], nodes)


def _box(body: _Body) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(body.low, body.nodes.shape, strict=True))
