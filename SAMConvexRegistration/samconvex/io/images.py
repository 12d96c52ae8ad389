"""Images and label maps from files and to files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk
import torch

from ..errors import InputError, ResourceError, refusing
from ..space.grid import Grid
from ..space.headers import open_image
from ..space.volume import Volume, check_volume
from .dicom import check_elements, check_slices
from .nifti import check_nifti

_UNREADABLE = "{} could not be read as an image; give a NIfTI, NRRD, MetaImage file or a DICOM series folder."


def read_volume(path: str | os.PathLike, *, slices: bool = False) -> Volume:
    """Read a scalar 3D image file, or the largest series of a DICOM folder.

    Args:
        slices: 2D images are welcome too, as volumes of one slice.

    Raises:
        InputError: missing, unreadable, not 3D, multi-component, non-finite, constant or too small.
    """
    image, notes = _read(path, slices)
    volume = Volume.from_sitk(image, str(path), notes)
    check_volume(volume, slices=slices)
    return volume


def read_labels(path: str | os.PathLike) -> Volume:
    """Read a label map (integers; floats that hold integers are accepted).

    Raises:
        InputError: as :func:`read_volume`, or values that are not integers, or no label at all.
    """
    image, notes = _read(path)
    volume = Volume.from_sitk(image, str(path), notes)
    tensor = volume.tensor
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()) or not bool((tensor == tensor.round()).all()):
            raise InputError(f"{path} holds fractional values; a label map needs whole numbers.")
        volume = replace(volume, tensor=tensor.to(torch.int32), pixel_id=sitk.sitkInt32)
    if not bool(volume.tensor.any()):
        raise InputError(f"{path} has no label above 0; check that it is the segmentation.")
    return volume


def read_mask(path: str | os.PathLike) -> Volume:
    """Read a mask: every nonzero voxel counts."""
    volume = read_labels(path)
    return replace(volume, tensor=(volume.tensor != 0).to(torch.uint8), pixel_id=sitk.sitkUInt8)


def write_volume(volume: Volume, path: str | os.PathLike) -> None:
    """Write in the volume's pixel type; the file format follows the ending."""
    write_image(volume.to_sitk(), path)


def write_image(image: sitk.Image, path: str | os.PathLike) -> None:
    """Write a SimpleITK image, compressed.

    Raises:
        InputError: unknown ending. ResourceError: the disk refused.
    """
    target = Path(path)
    # ITK knows endings in small letters only: of others it refuses some and writes some under another name.
    spelled = target.with_name(_in_small_letters(target.name))
    try:
        sitk.WriteImage(image, str(spelled), True)
        if spelled != target:
            os.replace(spelled, target)
    except Exception as error:
        if "Unable to determine ImageIO writer" in str(error):
            raise InputError(f"{path}: unknown image format; use .nii.gz, .nrrd or .mha.") from error
        raise ResourceError(f"{path} could not be written; check free space and permissions.") from error


def _in_small_letters(name: str) -> str:
    """The name with its ending, ".nii.gz" included, in small letters."""
    stem, dot, ending = name.rpartition(".")
    if ending.lower() == "gz":
        stem, dot, before = stem.rpartition(".")
        ending = f"{before}.{ending}"
    return f"{stem}{dot}{ending.lower()}"


def _read(path: str | os.PathLike, slices: bool = False) -> tuple[sitk.Image, tuple[str, ...]]:
    location = Path(path)
    if not location.exists():
        raise InputError(f"{path} does not exist; check the path.")
    notes: tuple[str, ...] = ()
    with refusing(_UNREADABLE.format(path)):
        if location.is_dir():
            image, notes = _read_dicom(location)
        else:
            if location.name.lower().endswith((".nii", ".nii.gz")):
                check_nifti(location)
            image = open_image(location).Execute()
    if image.GetNumberOfComponentsPerPixel() != 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise InputError(f"{path} has {count} components per voxel; extract one scalar image first.")
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if slices and image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if slices and image.GetDimension() == 3 and image.GetSize().count(1) == 1:
        flat = image.GetSize().index(1)
        return sitk.PermuteAxes(image, [axis for axis in range(3) if axis != flat] + [flat]), notes
    if image.GetDimension() != 3 or 1 in image.GetSize():
        flat = image.GetDimension() if image.GetDimension() != 3 else 2
        raise InputError(f"{path} is {flat}D; give one 3D volume.")
    return image, notes


def _read_dicom(folder: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    check_elements(folder)
    reader = sitk.ImageSeriesReader()
    series = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
    if not series:
        raise InputError(f"{folder} holds no DICOM series; give the folder that directly contains the slices.")
    uid = max(series, key=lambda key: len(series[key]))
    reader.SetFileNames(series[uid])
    notes: tuple[str, ...] = ()
    if len(series) > 1:
        notes = (f"{folder} holds {len(series)} DICOM series; the largest ({len(series[uid])} slices) was read.",)
    return reader.Execute(), notes + check_slices(series[uid], str(folder))


def read_grid(path: str | os.PathLike) -> Grid:
    """Grid of an image; of a file only the header is read.

    Raises:
        InputError: missing, not an image, or not 3D.
    """
    location = Path(path)
    if not location.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if location.is_dir():
        return read_volume(path).grid
    reader = open_image(path)
    if reader.GetDimension() == 4 and reader.GetSize()[3] == 1:
        return read_volume(path).grid
    if reader.GetDimension() != 3:
        raise InputError(f"{path} is {reader.GetDimension()}D; give one 3D volume.")
    return Grid.from_sitk(reader)
