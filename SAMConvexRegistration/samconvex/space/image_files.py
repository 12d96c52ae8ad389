"""Image files opened through ITK: the named file and no twin, and the real reason where one cannot be read."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError
from .grid import Grid
from .nifti import check_nifti, frame_notes, is_nifti_name, named_alone, refusal

# Fields of text headers that say how far apart the voxels lie, and where they are.
_PLACE_FIELDS = {
    (".nrrd", ".nhdr"): (("space directions", "spacings"), ("space origin",)),
    (".mha", ".mhd"): (("ElementSpacing", "ElementSize"), ("Offset", "Position", "Origin")),
}
_MOST_HEADER = 1 << 16
_GIPL_HEADER = 256


def read_image(path: str | os.PathLike, filler: str = "the air value") -> sitk.Image:
    """Read exactly the named file; ``filler`` is what messages propose in place of voxels that are no numbers.

    Raises:
        InputError: unreadable, cut short, or NIfTI voxels that are no numbers.
    """
    if is_nifti_name(path):
        check_nifti(path, filler)
    try:
        with _alone(path) as opened:
            image = sitk.ReadImage(str(opened))
    except (RuntimeError, OSError, UnicodeDecodeError) as error:
        raise InputError(_sentence(path, error)) from error
    _check_length(Path(path), image)
    return image


def _check_length(path: Path, image: sitk.Image) -> None:
    """ITK fills .gipl and binary .vtk files that were cut short without a word."""
    if path.suffix.lower() not in (".gipl", ".vtk"):
        return
    with open(path, "rb") as stream:
        if b"\nASCII" in stream.read(1024):
            return
    count = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel() * image.GetSizeOfPixelComponent()
    if path.stat().st_size < count + (_GIPL_HEADER if path.suffix.lower() == ".gipl" else 0):
        raise InputError(f"{path} could not be read because it is cut short or damaged; copy or export it again.")


def read_header(path: str | os.PathLike) -> sitk.ImageFileReader:
    """A reader that holds the header (size, spacing, metadata) of exactly the named file.

    Raises:
        InputError: unreadable.
    """
    reader = sitk.ImageFileReader()
    try:
        with _alone(path) as opened:
            reader.SetFileName(str(opened))
            reader.ReadImageInformation()
    except (RuntimeError, OSError, UnicodeDecodeError) as error:
        raise InputError(_sentence(path, error)) from error
    return reader


def place_notes(path: str | os.PathLike, grid: Grid) -> tuple[str, ...]:
    """Sentences where a file does not say where its voxels lie, or says it twice; ``grid`` is what ITK made of it."""
    if is_nifti_name(path):
        return frame_notes(path, grid)
    fields = next((fields for ends, fields in _PLACE_FIELDS.items() if str(path).lower().endswith(ends)), ())
    if not fields:
        return ()
    with open(path, "rb") as stream:
        header = stream.read(_MOST_HEADER).decode("latin-1")
    names = {line.partition(mark)[0].strip().lower() for line in header.splitlines()[:400] for mark in ":="}
    kinds = ("spacing", "position")
    lacking = [
        kind for kind, any_of in zip(kinds, fields, strict=True) if not any(name.lower() in names for name in any_of)
    ]
    if not lacking:
        return ()
    return (f"{path} states no {' and no '.join(lacking)}; it was read as if it lay at 0 with voxels of 1 mm.",)


def _alone(path: str | os.PathLike) -> AbstractContextManager[Path]:
    return named_alone(Path(path)) if is_nifti_name(path) else nullcontext(Path(path))


def _sentence(path: str | os.PathLike, error: Exception) -> str:
    location = Path(path)
    if isinstance(error, OSError):
        return f"{path} could not be opened ({error.strerror}); check its permissions."
    if location.is_file() and location.stat().st_size == 0:
        return f"{path} is empty; copy or export it again."
    sentence = refusal(location) if is_nifti_name(path) else None
    if sentence is not None:
        return sentence
    way_out = "give a NIfTI, NRRD, MetaImage file or a DICOM series folder."
    reason = _reason(error)
    return f"{path} could not be read as an image{f' ({reason})' if reason else ''}; {way_out}"


def _reason(error: Exception) -> str:
    """What ITK says went wrong, without its places in the source; empty where it only found no reader."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # ITK's own sentence may hold bytes of a damaged header.
    last = lines[-1] if lines and not isinstance(error, UnicodeDecodeError) else ""
    if "No such file" in last:
        # What MetaImage says of voxels that end too early.
        return "cut short, or its data file is missing"
    for mark in ("ITK ERROR:", "sitk::ERROR:"):
        last = last.rpartition(mark)[2].strip()
    return "" if "Unable to determine ImageIO" in last or "does not exist" in last else last.rstrip(".!")[:160]
