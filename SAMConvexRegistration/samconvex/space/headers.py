"""Image files opened by ITK, once their headers are known to be such that ITK survives them."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError, refusing
from .grid import FARTHEST_MM, Grid

# Deflate makes nothing smaller than this; ITK takes the memory that a header asks for before it looks at the voxels.
_DENSEST = 1100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_ELSEWHERE = re.compile(rb"(?im)^(data ?file\s*:|ElementDataFile\s*=(?!\s*LOCAL))")
_DIMENSIONS = re.compile(rb"(?m)^\s*NDims\s*=\s*(\S+)")
# The line that ends a MetaImage header.
_LAST_LINE = re.compile(rb"(?m)^\s*ElementDataFile\s*=[^\n]*$")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST_LINE = 2000
_HEADER_BYTES = 1 << 16
_NIFTI_BYTES = 348
# More than any image has; MetaIO writes beyond its arrays from 11 on.
_MOST_DIMENSIONS = 5


def open_image(path: str | os.PathLike) -> sitk.ImageFileReader:
    """A reader that has read the header of an image file; its ``Execute()`` reads the voxels.

    Raises:
        InputError: not an image; no usable place in space; or more voxels announced than the file can hold.
    """
    location = Path(path)
    name = location.name.lower()
    head = _beginning(location)
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        _check_nifti_place(head, location)
    elif name.endswith((".mha", ".mhd")):
        _check_meta_image(head, location)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(location))
    with refusing(f"{path} could not be read as an image; give a NIfTI, NRRD or MetaImage file."):
        reader.ReadImageInformation()
    if not 2 <= reader.GetDimension() <= _MOST_DIMENSIONS:
        raise _wrong_dimensions(path, reader.GetDimension())
    if reader.GetDimension() == 3:
        try:
            Grid.from_sitk(reader)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if not (name.endswith((".nhdr", ".mhd", ".hdr")) or _ELSEWHERE.search(head)):
        _check_announced(reader, location)
    return reader


def _check_meta_image(head: bytes, location: Path) -> None:
    """MetaIO writes beyond its buffers where a header has many dimensions, or goes on into the voxels."""
    end = _LAST_LINE.search(head)
    if (
        end is None
        or _CONTROL.search(head[: end.end()])
        or max(map(len, head[: end.end()].split(b"\n"))) > _LONGEST_LINE
    ):
        raise InputError(f"{location} could not be read as an image: its header is damaged; copy or export it again.")
    found = _DIMENSIONS.findall(head[: end.end()])
    for count in found:
        if not (count.isdigit() and 2 <= int(count[:9]) <= _MOST_DIMENSIONS):
            raise _wrong_dimensions(location, count.decode(errors="replace")[:20])


def check_transform_text(path: str | os.PathLike) -> None:
    """Refuse a text transform with control characters: ITK stops counting numbers there and writes beyond its memory.

    Raises:
        InputError: such a character. Files of other kinds (.h5, .mat) pass.
    """
    location = Path(path)
    if location.suffix.lower() in (".tfm", ".txt") and _CONTROL.search(location.read_bytes()):
        raise InputError(f"{path} could not be read as a transform: it is damaged; copy or save it again.")


def _wrong_dimensions(path: str | os.PathLike, count: object) -> InputError:
    return InputError(f"{path} announces {count} dimensions; give one 3D volume.")


def _beginning(location: Path) -> bytes:
    """The first bytes of a file, unpacked where it is a .gz; nothing where it cannot be read so far."""
    try:
        if location.name.lower().endswith(".gz"):
            with gzip.open(location) as stream:
                return stream.read(_NIFTI_BYTES)
        with open(location, "rb") as stream:
            return stream.read(_HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        # ITK says what it thinks of the file.
        return b""


def _check_nifti_place(head: bytes, location: Path) -> None:
    """ITK looks for ever for the axes of a NIfTI header whose matrix holds NaN or infinity."""
    if len(head) < _NIFTI_BYTES or head[344:347] not in (b"n+1", b"ni1"):
        return
    order = "<" if struct.unpack("<i", head[:4])[0] == _NIFTI_BYTES else ">"
    numbers = struct.unpack(f"{order}26f", head[76:108] + head[256:328])
    if not all(abs(number) < FARTHEST_MM for number in numbers):
        raise InputError(f"{location} has a header whose place in space is no number; correct it or export it again.")


def _check_announced(reader: sitk.ImageFileReader, location: Path) -> None:
    """Refuse a header that announces more voxels than the file can hold."""
    pixel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    announced = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * pixel.GetSizeOfPixelComponent()
    size = location.stat().st_size
    # A side beyond 32 bits comes out of the reader as 0 or small.
    if announced == 0 or announced > max(_ALWAYS_ALLOWED_BYTES, _DENSEST * size):
        raise InputError(
            f"{location} announces {announced / 2**20:.0f} MiB of voxels but holds {size / 2**20:.1f} MiB; it is cut "
            "short or damaged, copy or export it again."
        )
