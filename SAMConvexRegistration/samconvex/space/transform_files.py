"""Displacement fields as image files, whose numbers do not say which way they map or what they mean."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError
from .field import DisplacementField
from .grid import Grid
from .image_files import read_header, read_image
from .nifti import is_nifti_name

FIELD_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

# Slicer marks so a field that moves the moving image's points, against the direction of resampling.
_KIND, _MODELING = "displacement field type", "modeling"
_SPM_INTENT_NAME = "Mapping"
_NIFTYREG_INTENT_NAME = "NREG_TRANS"
_FNIRT_INTENTS = range(2006, 2020)
_RAS = torch.tensor([-1.0, -1.0, 1.0])[None, :, None, None, None]


@dataclass(frozen=True)
class FieldFile:
    """A displacement field as its file means it.

    Attributes:
        field: LPS mm.
        backwards: it maps moving to fixed points; the transform is its inverse.
        notes: what had to be understood, for the report.
    """

    field: DisplacementField
    backwards: bool
    notes: tuple[str, ...]


def read_field(path: str | os.PathLike) -> FieldFile:
    """Read a vector image of displacements, or the absolute positions of SPM and NiftyReg.

    Raises:
        InputError: unreadable, no 3D vectors, not finite, or vectors of an unknown meaning.
    """
    image = read_image(path, "0")
    header = read_header(path)
    tags = {key: header.GetMetaData(key).strip() for key in header.GetMetaDataKeys()}
    if is_nifti_name(path) and _whole(tags.get("intent_code")) in _FNIRT_INTENTS:
        raise InputError(f"{path} is a field of FSL FNIRT in FSL's own coordinates; convert it to an ITK field first.")
    if image.GetNumberOfComponentsPerPixel() != 3 or image.GetDimension() != 3:
        raise InputError(f"{path} is no displacement field; it needs 3 components per voxel in 3D.")
    field = DisplacementField.from_sitk_image(image)
    lost = ~torch.isfinite(field.tensor).all(1)
    if bool(lost.any()):
        share = 100 * float(lost.float().mean())
        raise InputError(
            f"{path} holds displacements that are no numbers (NaN or infinite, {share:.2g} % of its voxels); "
            "set them to values that continue the field, or to 0, and retry."
        )
    if tags.get(_KIND, "").lower() == _MODELING:
        note = f"{path} is marked as a modeling field (moving to fixed); its inverse was used as the transform."
        return FieldFile(field, True, (note,))
    field, notes = _as_displacements(field, tags if is_nifti_name(path) else {}, str(path))
    return FieldFile(field, False, notes)


def _as_displacements(
    field: DisplacementField, tags: dict[str, str], path: str
) -> tuple[DisplacementField, tuple[str, ...]]:
    """LPS displacements of a field whose numbers may be positions; ``tags`` of a NIfTI header."""
    name = tags.get("intent_name", "")
    if name == _SPM_INTENT_NAME:
        note = f"{path} holds absolute positions as SPM writes them; they were turned into displacements."
        return _from_positions(field), (note,)
    if name == _NIFTYREG_INTENT_NAME:
        kind = _whole(tags.get("intent_p1"))
        if kind == 0:
            return _from_positions(field), (f"{path} holds absolute positions as NiftyReg writes them.",)
        if kind == 1:
            return DisplacementField(field.tensor * _RAS, field.grid), ()
        raise InputError(
            f"{path} holds control points or velocities of NiftyReg; turn it into a deformation field (reg_transform)."
        )
    slopes = np.diag(linear_part(field) - np.eye(3))
    if np.abs(np.abs(slopes) - 1).max() < 0.3 and slopes[2] > 0 and slopes[0] * slopes[1] > 0:
        raise InputError(
            f"{path} holds positions, not displacements (they grow with the place by 1 mm per mm); subtract each "
            "voxel's own position, or convert it to an ITK displacement field."
        )
    return field, ()


def _whole(text: str | None) -> int:
    """A whole number of a header; -1 where it is none."""
    try:
        return int(float(text or "0"))
    except (ValueError, OverflowError):
        return -1


def _from_positions(field: DisplacementField) -> DisplacementField:
    """Displacements of a field that holds where, in RAS mm, each of its voxels maps to."""
    own = field.grid.voxel_centers().permute(3, 0, 1, 2)[None]
    return DisplacementField((field.tensor * _RAS - own).contiguous(), field.grid)


def linear_part(field: DisplacementField) -> np.ndarray:
    """(3, 3) matrix of the linear map nearest to a field, fitted at about a thousand of its samples."""
    steps = [max(1, size // 10) for size in field.grid.shape]
    index = np.stack(
        np.meshgrid(*(np.arange(0, size, step) for size, step in zip(field.grid.shape, steps, strict=True))), -1
    ).reshape(-1, 3)
    shifts = field.tensor[0][:, index[:, 0], index[:, 1], index[:, 2]].T.double().numpy()
    points = field.grid.voxels_to_points(index[:, ::-1])
    points = points - points.mean(0)
    slopes = np.linalg.lstsq(points, shifts - shifts.mean(0), rcond=None)[0].T
    return np.eye(3) + slopes


def sampled(transform: sitk.Transform, grid: Grid) -> DisplacementField:
    """Any ITK transform as a field over ``grid``."""
    image = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
    )
    return DisplacementField.from_sitk_image(image)
