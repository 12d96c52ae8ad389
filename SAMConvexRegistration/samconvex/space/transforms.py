"""Spatial transforms between images: affine maps, chains of maps, and the ITK files that hold them.

A registration transform maps points of the fixed image to the moving image (ITK's convention), so it pulls the moving
image onto the fixed grid; points of the moving image are carried to the fixed image by its inverse.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError, ResourceError, check_at_hand, refusing
from .field import DisplacementField, InverseField
from .filling import not_measured
from .grid import Grid, as_points
from .itk_transforms import read_itk
from .sampling import inside, sample, slabs
from .transform_files import FIELD_ENDINGS, linear_part, read_field, sampled
from .volume import Volume


@dataclass(frozen=True)
class AffineTransform:
    """p -> matrix @ p + translation, LPS mm (numpy float64, (3, 3) and (3,))."""

    matrix: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> AffineTransform:
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def about(cls, center: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> AffineTransform:
        """p -> matrix @ (p - center) + center + shift."""
        matrix, center = np.asarray(matrix, dtype=float), np.asarray(center, dtype=float)
        return cls(matrix, center - matrix @ center + np.asarray(shift, dtype=float))

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm."""
        return as_points(points) @ self.matrix.T + self.translation

    def scaled(self, factor: float) -> AffineTransform:
        """The same map between points whose coordinates are multiplied by ``factor``."""
        return AffineTransform(self.matrix, self.translation * factor)

    def inverse(self) -> AffineTransform:
        inverse = np.linalg.inv(self.matrix)
        return AffineTransform(inverse, -inverse @ self.translation)

    def after(self, first: AffineTransform) -> AffineTransform:
        """The composition p -> self(first(p))."""
        return AffineTransform(self.matrix @ first.matrix, self.matrix @ first.translation + self.translation)

    def to_sitk(self) -> sitk.AffineTransform:
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(self.matrix.ravel().tolist())
        transform.SetTranslation(self.translation.tolist())
        return transform

    @classmethod
    def from_sitk(cls, transform: sitk.Transform) -> AffineTransform:
        """From any linear 3D ITK transform.

        Raises:
            InputError: it has no inverse, or holds numbers that are not finite.
        """
        origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
        columns = [np.asarray(transform.TransformPoint(tuple(row))) - origin for row in np.eye(3)]
        matrix = np.stack(columns, 1)
        if not (np.isfinite(matrix).all() and np.isfinite(origin).all()):
            raise InputError("it holds numbers that are not finite; save it again.")
        stretch = np.linalg.svd(matrix, compute_uv=False)
        if stretch[2] <= 1e-6 * stretch[0]:
            raise InputError(
                "it is singular (space is pressed flat, nothing leads back); give an invertible transform."
            )
        return cls(matrix, origin)


Part = AffineTransform | DisplacementField | InverseField


# A label that keeps less than this share of its voxels of nearest neighbor is too thin for shares.
THIN = 0.8


def _keep_thin(shares: torch.Tensor, nearest: torch.Tensor) -> None:
    """Give labels that lose much of what they have in ``nearest`` those voxels, in ``shares``; no label is lost."""
    expected = _counts(nearest)
    thin: set[float] = set()
    while True:
        found = _counts(shares)
        # What others take from a label for being thin may make it one of them.
        more = {label for label, n in expected.items() if label not in thin and found.get(label, 0) < THIN * n}
        if not more:
            return
        thin |= more
        where = torch.isin(nearest, torch.tensor(sorted(more), dtype=nearest.dtype))
        shares[where] = nearest[where]


def _counts(labels: torch.Tensor) -> dict[float, int]:
    """Voxels of every label but 0."""
    found, counts = labels[labels != 0].unique(return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True)
class Transform:
    """A chain of maps, applied to points in the order of ``parts``.

    What :func:`samconvex.register` returns is (field, affine): T(p) = A(p + u(p)).

    Attributes:
        parts: the maps, the first acts first.
        notes: what reading the file had to understand, for the report's warnings.
    """

    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 3) LPS mm.

        Raises:
            InputError: another shape, or numbers that are not finite.
        """
        points = as_points(points, finite=True)
        for part in self.parts:
            points = part.map_points(points)
        return points

    @property
    def mirrors(self) -> bool:
        """True where the parts together turn left into right or the like; a field counts by the linear map in it."""
        sign = 1.0
        for part in self.parts:
            field = part.field if isinstance(part, InverseField) else part
            matrix = field.matrix if isinstance(field, AffineTransform) else linear_part(field)
            sign *= np.sign(np.linalg.det(matrix))
        return bool(sign < 0)

    def after(self, first: Transform) -> Transform:
        """The composition p -> self(first(p))."""
        return Transform(first.parts + self.parts)

    def scaled(self, factor: float) -> Transform:
        """The same map between points whose coordinates are multiplied by ``factor``."""
        return Transform(tuple(part.scaled(factor) for part in self.parts), self.notes)

    def inverse(self) -> Transform:
        """The inverse chain; fields are inverted numerically on their own grids."""
        return Transform(tuple(part.inverse() for part in reversed(self.parts)))

    def map_relative(self, points: torch.Tensor, reference: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Map a (d, h, w, 3) block given relative to ``reference``; returns the block and its new reference.

        The reference travels in float64, so that float32 blocks stay exact far from the scanner's origin.
        """
        for part in self.parts:
            if isinstance(part, AffineTransform):
                points = points @ torch.as_tensor(part.matrix.T.copy(), dtype=points.dtype, device=points.device)
                reference = part.map_points(reference[None])[0]
            else:
                points = part.map_relative(points, reference)
        return points, reference

    def displacement_field(self, grid: Grid) -> DisplacementField:
        """The whole map as one displacement field on ``grid``."""
        points = grid.voxel_centers(reference=grid.center)
        moved, reference = self.map_relative(points, grid.center)
        shift = torch.as_tensor(reference - grid.center, dtype=moved.dtype)
        return DisplacementField((moved - points + shift).permute(3, 0, 1, 2)[None].contiguous(), grid)

    def warp_volume(
        self,
        moving: Volume,
        like: Volume | Grid,
        *,
        background: float | None = None,
        report: Callable[[float], None] | None = None,
    ) -> Volume:
        """Pull ``moving`` onto the grid of ``like``, linear interpolation, pixel type kept; slab by slab.

        Outside the moving image the result is ``background`` (default: the moving image's minimum).
        """
        fill = moving.background if background is None else background
        return self._warp(moving, like, "linear", fill, report)

    def warp_with_validity(
        self, moving: Volume, like: Volume | Grid, *, report: Callable[[float], None] | None = None
    ) -> tuple[Volume, Volume]:
        """:meth:`warp_volume` and :meth:`validity` in one pass."""
        grid = like if isinstance(like, Grid) else like.grid
        valid = torch.empty(1, 1, *grid.shape, dtype=torch.uint8)
        warped = self._warp(moving, grid, "linear", moving.background, report, valid)
        return warped, Volume(valid, grid, sitk.sitkUInt8)

    def reaches(self, moving: Volume, points: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the moving image has data where (N, 3) LPS mm are mapped to; as :meth:`validity`."""
        mapped = torch.from_numpy(self.map_points(points) - moving.grid.center)[None, None]
        return _has_data(moving, _lacking(moving), mapped, moving.grid.center)[0, 0, 0, 0].numpy()

    def validity(self, moving: Volume, like: Volume | Grid) -> Volume:
        """uint8 on the grid of ``like``: 1 where the moving image has data, 0 where a warped image holds background.

        Data ends at the buffer (ITK's rule), and in a CT where it was filled up, see :mod:`samconvex.space.filling`.
        """
        grid = like if isinstance(like, Grid) else like.grid
        valid = torch.empty(1, 1, *grid.shape, dtype=torch.uint8)
        lacking = _lacking(moving)
        for z0, z1 in slabs(grid):
            points = grid.voxel_centers(z0, z1, reference=grid.center)
            moved, reference = self.map_relative(points, grid.center)
            valid[:, :, z0:z1] = _has_data(moving, lacking, moved, reference)
        return Volume(valid, grid, sitk.sitkUInt8)

    def warp_labels(
        self, labels: Volume, like: Volume | Grid, *, report: Callable[[float], None] | None = None
    ) -> Volume:
        """Pull a label map onto the grid of ``like``, 0 outside: each voxel takes the label of the largest share there.

        Shares are interpolated linearly, so that outlines come out smoother and more exact than by nearest neighbor.
        Labels of single voxels and thin lines, which hold the largest share nearly nowhere, keep the voxels of nearest
        neighbor (:data:`THIN`).
        """

        def told(start: float, end: float) -> Callable[[float], None] | None:
            return None if report is None else lambda fraction: report(start + (end - start) * fraction)

        warped = self._warp(labels, like, "labels", 0.0, told(0.0, 0.7))
        _keep_thin(warped.tensor, self._warp(labels, like, "nearest", 0.0, told(0.7, 1.0)).tensor)
        return warped

    def warp_nearest(self, image: Volume, like: Volume | Grid) -> Volume:
        """Pull onto the grid of ``like``, nearest neighbor, 0 outside: for masks, where single voxels count."""
        return self._warp(image, like, "nearest", 0.0, None)

    def _warp(
        self,
        moving: Volume,
        like: Volume | Grid,
        mode: str,
        fill: float,
        report: Callable[[float], None] | None,
        valid: torch.Tensor | None = None,
    ) -> Volume:
        """``valid`` (uint8, the shape of the result) receives the validity."""
        grid = like if isinstance(like, Grid) else like.grid
        values = moving.tensor.float() if mode == "linear" else moving.tensor
        lacking = _lacking(moving) if mode == "linear" else None
        if lacking is not None:
            values = values * (1 - lacking)
        output = torch.empty(1, 1, *grid.shape, dtype=moving.tensor.dtype)
        for z0, z1 in slabs(grid):
            points = grid.voxel_centers(z0, z1, reference=grid.center)
            moved, reference = self.map_relative(points, grid.center)
            block = sample(values, moving.grid, moved, reference=reference, mode=mode, fill=fill)
            if lacking is not None:
                # The mean of the measured neighbors alone: what was filled up must not blend with tissue.
                share = 1 - sample(lacking, moving.grid, moved, reference=reference)
                block /= share.clamp_(min=0.1)
                block.masked_fill_(~_has_data(moving, lacking, moved, reference), fill)
            output[:, :, z0:z1] = block if output.is_floating_point() else block.round_()
            if valid is not None:
                valid[:, :, z0:z1] = _has_data(moving, lacking, moved, reference)
            if report is not None:
                report(z1 / grid.size[2])
        return moving.with_tensor(output, grid)

    def to_sitk(self) -> sitk.Transform:
        """As an ITK transform: composite of affine and displacement-field transforms."""
        composite = sitk.CompositeTransform(3)
        # ITK applies the transform added last first.
        for part in reversed(self.parts):
            if isinstance(part, AffineTransform):
                composite.AddTransform(part.to_sitk())
            else:
                field = part.sampled() if isinstance(part, InverseField) else part
                composite.AddTransform(sitk.DisplacementFieldTransform(field.to_sitk_image()))
        if not self.parts:
            composite.AddTransform(AffineTransform.identity().to_sitk())
        return composite

    @classmethod
    def from_sitk(cls, transform: sitk.Transform) -> Transform:
        """From a linear, displacement-field or composite ITK transform; others (B-spline) via ``like`` in load."""
        return cls(tuple(_parts(transform.Downcast() if hasattr(transform, "Downcast") else transform, None)))

    def save(self, path: str | os.PathLike) -> None:
        """Write an ITK transform file (.h5, .tfm); readable by SimpleITK and Slicer."""
        try:
            sitk.WriteTransform(self.to_sitk(), str(path))
        except RuntimeError as error:
            raise ResourceError(f"{path} could not be written; check free space and permissions.") from error

    @classmethod
    def load(cls, path: str | os.PathLike, like: Grid | None = None) -> Transform:
        """Read an ITK transform file, or a vector image of LPS displacements (.nii.gz, .nrrd, .mha).

        Args:
            like: the fixed grid; B-spline and other non-linear transforms are sampled over it.

        Raises:
            InputError: missing or unreadable, not finite, of unknown meaning, or a transform that needs ``like``.
        """
        location = Path(path)
        check_at_hand(path, "of the transform")
        parts: tuple[Part, ...]
        notes: tuple[str, ...] = ()
        if location.name.lower().endswith(FIELD_ENDINGS):
            with refusing(f"{path} could not be read as a displacement field; save it again."):
                read = read_field(location)
            parts, notes = (InverseField(read.field) if read.backwards else read.field,), read.notes
        else:
            transform, inverted = read_itk(location)
            try:
                with refusing("it holds numbers that no transform can have; save it again."):
                    parts = tuple(_parts(transform, like, inverted))
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        read_in = cls(parts)
        if read_in.mirrors:
            notes += (f"{path} mirrors: it turns left into right or the like. Check that this is meant.",)
        return replace(read_in, notes=notes)


def _lacking(moving: Volume) -> torch.Tensor | None:
    """Float (1, 1, D, H, W): 1 where a CT has no data; None where it has data everywhere."""
    lacking = not_measured(moving)
    return None if lacking is None else lacking.float()


def _has_data(
    moving: Volume, lacking: torch.Tensor | None, points: torch.Tensor, reference: np.ndarray
) -> torch.Tensor:
    """Bool (1, 1, d, h, w): points (d, h, w, 3), LPS mm from ``reference``, that lie on a voxel with data."""
    found = inside(moving.grid, moving.grid.normalized(points, reference))[None, None]
    if lacking is not None:
        found = found & (sample(lacking, moving.grid, points, reference=reference, mode="nearest", fill=1.0) < 0.5)
    return found


def _parts(transform: sitk.Transform, like: Grid | None, inverted: tuple[bool, ...] = ()) -> list[Part]:
    """Flatten an ITK transform into parts in the order they act on points; ``inverted``: as :func:`read_itk` says."""
    transform = transform.Downcast() if hasattr(transform, "Downcast") else transform
    if transform.GetDimension() != 3:
        raise InputError("the transform is not 3D; give a 3D transform.")
    if isinstance(transform, sitk.CompositeTransform):
        nested = [transform.GetNthTransform(n) for n in range(transform.GetNumberOfTransforms())]
        marks = inverted if any(inverted) else (False,) * len(nested)
        pairs = zip(reversed(nested), reversed(marks), strict=True)
        return [part for inner, mark in pairs for part in _parts(inner, like, (mark,))]
    part = _part(transform, like)
    if any(inverted):
        return [part.inverse() if isinstance(part, AffineTransform) else InverseField(part)]
    return [part]


def _part(transform: sitk.Transform, like: Grid | None) -> AffineTransform | DisplacementField:
    if transform.IsLinear():
        return AffineTransform.from_sitk(transform)
    if isinstance(transform, sitk.DisplacementFieldTransform):
        field = DisplacementField.from_sitk_image(transform.GetDisplacementField())
        if not bool(torch.isfinite(field.tensor).all()):
            raise InputError("its displacement field holds NaN or infinite values; set them to 0 and retry.")
        return field
    if like is None:
        raise InputError(f"a {transform.GetName()} needs the fixed image to be sampled on; give it too.")
    # Sampled with a margin, then one node finer than the usual B-spline knots.
    return sampled(transform, Grid.covering(like.corners(), 3.0, margin_mm=6.0))
