"""What ITK's series reader hides: missing slices change the spacing, and a tilted gantry is read as if it were not."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
# Rounding in DICOM headers stays far below; a gap of one missing slice is a whole spacing.
_UNEVEN = 0.1
_TILT_MM = 1.0
_META_GROUP = 0x0002
_IMPLICIT = b"1.2.840.10008.1.2"
# Deflated, and big endian; compressed voxels lie in explicit little-endian files like others.
_OTHERWISE_CODED = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2")
_LONG_FORMS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF


def check_slices(files: Sequence[str], folder: str) -> tuple[str, ...]:
    """Check that the slices of a series form a regular, straight stack.

    Args:
        files: slices in the order of their positions.
        folder: for messages.

    Returns:
        Notes for the report, where the stack is slightly uneven.

    Raises:
        InputError: slices are missing or double, or the gantry was tilted.
    """
    headers = [_header(file) for file in files]
    if len(files) < 3 or any(header is None for header in headers):
        # Multi-frame files and derived images carry their geometry elsewhere.
        return ()
    positions = np.array([header[0] for header in headers if header])
    axes = next(header[1] for header in headers if header)
    normal = np.cross(axes[:3], axes[3:])
    along = positions @ normal
    steps = np.abs(np.diff(along))
    usual = float(np.median(steps))
    if usual < 1e-3 or steps.min() < 0.01 * usual:
        raise InputError(f"{folder} holds several slices at one position; export a single phase of one series.")
    if steps.max() > 1.5 * usual:
        raise InputError(
            f"{folder} lacks slices (a gap of {steps.max():.1f} mm among slices {usual:.1f} mm apart); "
            "export the whole series again."
        )
    shift = positions[-1] - positions[0] - (along[-1] - along[0]) * normal
    if np.linalg.norm(shift) > _TILT_MM:
        angle = np.degrees(np.arctan2(np.linalg.norm(shift), abs(along[-1] - along[0])))
        raise InputError(
            f"{folder} was scanned with a tilted gantry ({angle:.0f} degrees); straighten it first, "
            "for example by loading it in 3D Slicer and saving it as NRRD with the acquisition transform applied."
        )
    if (steps.max() - steps.min()) > _UNEVEN * usual:
        return (
            f"The slices of {folder} are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); "
            "positions along them are approximate.",
        )
    return ()


def check_elements(folder: Path) -> None:
    """Refuse a DICOM file whose elements are longer than the file.

    GDCM takes the memory that an element announces, up to 4 GiB, before it looks whether the file has as much.

    Raises:
        InputError: such a file is in the folder.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and not _elements_fit(path):
            raise InputError(f"{path} is cut short or damaged; copy or export it again, or take it out of the folder.")


def _elements_fit(path: Path) -> bool:
    """Walk over the elements of an uncompressed file up to the first sequence; False where one leaves the file."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return True
        implicit, syntax = False, b""
        while len(head := stream.read(8)) == 8:
            group, number = struct.unpack("<HH", head[:4])
            if group != _META_GROUP and syntax:
                if syntax in _OTHERWISE_CODED:
                    return True
                implicit = syntax == _IMPLICIT
            if implicit:
                length = struct.unpack("<I", head[4:])[0]
            elif head[4:6] in _LONG_FORMS:
                length = struct.unpack("<I", stream.read(4).ljust(4, b"\0"))[0]
            else:
                length = struct.unpack("<H", head[6:])[0]
            if length == _UNDEFINED:
                return True
            if (group, number) == (_META_GROUP, 0x0010):
                syntax = stream.read(length).rstrip(b"\0 ")
                continue
            if stream.tell() + length > size:
                return False
            stream.seek(length, 1)
    return True


def _header(file: str) -> tuple[list[float], list[float]] | None:
    """Position and orientation of one slice, or None where the file does not say."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    if not (reader.HasMetaDataKey(_POSITION) and reader.HasMetaDataKey(_ORIENTATION)):
        return None
    numbers = [[float(text) for text in reader.GetMetaData(key).split("\\")] for key in (_POSITION, _ORIENTATION)]
    return (numbers[0], numbers[1]) if (len(numbers[0]), len(numbers[1])) == (3, 6) else None
