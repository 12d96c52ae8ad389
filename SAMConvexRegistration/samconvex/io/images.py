"""Images and label maps from files and to files."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..errors import InputError, ResourceError, check_at_hand, refusing
from ..space.grid import Grid
from ..space.image_files import place_notes, read_header, read_image
from ..space.volume import Volume, check_fits, check_volume
from .dicom import is_dicom, read_dicom
from .files import replaced

# What rounding in a header may move; more is another grid.
_SAME_PLACE_MM = 0.01
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
        InputError: as :func:`read_volume`, or values that are not integers, a label below 0, or no label at all.
    """
    image, notes = _read(path, labels=True)
    volume = Volume.from_sitk(image, str(path), notes)
    tensor = volume.tensor
    if tensor.is_floating_point():
        if not bool(torch.isfinite(tensor).all()) or not bool((tensor == tensor.round()).all()):
            raise InputError(f"{path} holds fractional values; a label map needs whole numbers.")
        check_fits(float(tensor.abs().max()), str(path))
        fits = bool(tensor.abs().max() < 2**31)
        volume = replace(
            volume,
            tensor=tensor.to(torch.int32 if fits else torch.int64),
            pixel_id=sitk.sitkInt32 if fits else sitk.sitkInt64,
        )
    lowest = int(volume.tensor.min())
    if lowest < 0:
        raise InputError(
            f"{path} holds the label {lowest}; labels are 0 (background) and above: set voxels to be ignored to 0."
        )
    if not bool(volume.tensor.any()):
        raise InputError(f"{path} has no label above 0; check that it is the segmentation.")
    return volume


def read_mask(path: str | os.PathLike) -> Volume:
    """Read a mask: every nonzero voxel counts."""
    volume = read_labels(path)
    return replace(volume, tensor=(volume.tensor != 0).to(torch.uint8), pixel_id=sitk.sitkUInt8)


def write_volume(volume: Volume, path: str | os.PathLike) -> None:
    """Write in the volume's pixel type; the file format follows the ending.

    Raises:
        InputError: unknown ending, or a format that cannot hold the grid. ResourceError: the disk refused.
    """
    check_format(path, volume.grid, volume.pixel_id)
    write_image(volume.to_sitk(), path)
    off = _corners_off(Grid.from_sitk(read_header(path)), volume.grid)
    if off > _SAME_PLACE_MM:
        raise ResourceError(f"{path} came back {off:.2f} mm off its grid; write it as .nrrd or .mha.")


def check_format(
    path: str | os.PathLike, grid: Grid, pixel_id: int = sitk.sitkUInt8, way_out: str = "choose .nrrd or .mha"
) -> None:
    """Refuse, before any work, a file format in which ``grid`` would not come back; a few voxels are written to see.

    Args:
        way_out: what messages propose.

    Raises:
        InputError: the format is unknown, or cannot hold the pixel type or the grid to a hundredth of a millimeter.
    """
    name = Path(path).name
    small = sitk.Image([min(2, size) for size in grid.size], pixel_id)
    try:
        with tempfile.TemporaryDirectory(prefix="samconvex-") as folder:
            trial = Path(folder) / _in_small_letters(f"trial{name[name.find('.') :]}")
            sitk.WriteImage(grid.apply_to_sitk(small), str(trial))
            read = Grid.from_sitk(read_header(trial))
    except InputError:
        off = math.inf
    except RuntimeError as error:
        if "Unable to determine ImageIO writer" in str(error):
            raise InputError(f"{path}: unknown image format; use .nii.gz, .nrrd or .mha.") from error
        kind = small.GetPixelIDTypeAsString()
        raise InputError(f"{path}: this format cannot hold {kind} voxels; choose .nrrd or .mha.") from error
    else:
        off = _corners_off(replace(read, size=grid.size), grid)
    if off > _SAME_PLACE_MM:
        axes = np.reshape(grid.direction, (3, 3))
        kind = "sheared" if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4 else "turned"
        far = f" (its corners would come back up to {off:.1f} mm off)" if math.isfinite(off) else ""
        raise InputError(f"{path}: this format cannot hold the {kind} grid{far}; {way_out}.")


def _corners_off(first: Grid, second: Grid) -> float:
    return float(np.linalg.norm(first.corners() - second.corners(), axis=1).max())


def write_image(image: sitk.Image, path: str | os.PathLike) -> None:
    """Write a SimpleITK image, compressed.

    Raises:
        InputError: unknown ending. ResourceError: the disk refused.
    """
    try:
        _write_spelled(image, Path(path))
    except Exception as error:
        if "Unable to determine ImageIO writer" in str(error):
            raise InputError(f"{path}: unknown image format; use .nii.gz, .nrrd or .mha.") from error
        raise ResourceError(f"{path} could not be written; check free space and permissions.") from error


def _write_spelled(image: sitk.Image, path: Path) -> None:
    """Write under the path's own name, whatever letters its ending has.

    ITK knows endings in small letters only: of others it refuses some and writes some under another name.
    """
    name = _in_small_letters(path.name)
    if name == path.name:
        sitk.WriteImage(image, str(path), True)
        return
    ending = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
    with replaced(path, ending) as neighbor:
        sitk.WriteImage(image, str(neighbor), True)


def _in_small_letters(name: str) -> str:
    """The name with its ending, ".nii.gz" included, in small letters."""
    stem, dot, ending = name.rpartition(".")
    if ending.lower() == "gz":
        stem, dot, before = stem.rpartition(".")
        ending = f"{before}.{ending}"
    return f"{stem}{dot}{ending.lower()}"


def _read(path: str | os.PathLike, slices: bool = False, labels: bool = False) -> tuple[sitk.Image, tuple[str, ...]]:
    location = Path(path)
    check_at_hand(path, folder=True)
    notes: tuple[str, ...] = ()
    with refusing(_UNREADABLE.format(path)):
        if is_dicom(location):
            image, notes = read_dicom(location, labels=labels, slices=slices)
        else:
            image = read_image(location, "0" if labels else "the air value")
            if image.GetDimension() == 3:
                notes = place_notes(location, Grid.from_sitk(image))
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


def read_grid(path: str | os.PathLike) -> Grid:
    """Grid of an image; of a file only the header is read.

    Raises:
        InputError: missing, not an image, or not 3D.
    """
    return read_grid_and_notes(path)[0]


def read_grid_and_notes(path: str | os.PathLike) -> tuple[Grid, tuple[str, ...]]:
    """:func:`read_grid`, and what reading had to decide.

    Raises:
        InputError: missing, not an image, or not 3D.
    """
    location = Path(path)
    check_at_hand(path, folder=True)
    if is_dicom(location):
        image, notes = _read(path)
        return Grid.from_sitk(image), notes
    reader = read_header(path)
    size = reader.GetSize()
    if reader.GetDimension() == 4 and size[3] == 1:
        volume = read_volume(path)
        return volume.grid, volume.notes
    if reader.GetDimension() != 3:
        raise InputError(f"{path} is {reader.GetDimension()}D; give one 3D volume.")
    grid = Grid.from_sitk(reader)
    return grid, place_notes(path, grid)
