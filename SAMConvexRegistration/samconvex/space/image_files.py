"""Image files opened through ITK: the named file and no twin, what ITK survives, the real reason where it cannot."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError, refusing
from . import hdf5
from .grid import Grid
from .nifti import (
    check_nifti,
    check_place,
    frame_notes,
    is_nifti_name,
    named_alone,
    refusal,
    without_lone_intercept,
)
from .stored_voxels import check_lengths, check_stored, in_meaning, nrrd_fields

# Fields of text headers that say how far apart the voxels lie, and where they are.
_PLACE_FIELDS = {
    (".nrrd", ".nhdr"): (("space directions", "spacings"), ("space origin", "axis mins", "axismins")),
    (".mha", ".mhd"): (("ElementSpacing", "ElementSize"), ("Offset", "Position", "Origin")),
}
_PATIENT_SPACE = re.compile("(?i)^(left|right)-(anterior|posterior)-(superior|inferior)|^[LR][AP][SI]T?$")
# ITK's objects and their places in memory.
_OBJECTS = re.compile(r"\b\w+\(0x[0-9a-f]+\): ")
_MOST_HEADER = 1 << 16
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS",
    b"<html": "a web page",
    b"<!doctype html": "a web page",
    b"pk\x03\x04": "a zip archive",
}
_META_IMAGE = (".mha", ".mhd")
_BY_ENDING = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".gipl": "GiplImageIO"}
# Deflate makes nothing smaller than this; ITK takes the memory that a header asks for before it looks at the voxels.
_DENSEST = 1100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_HEADERS_ALONE = (".nhdr", ".mhd", ".hdr", ".hdr.gz")
_ELSEWHERE = re.compile(rb"(?im)^(data ?file\s*:|ElementDataFile\s*=(?!\s*LOCAL))")
_DIMENSIONS = re.compile(rb"(?m)^\s*NDims\s*=\s*(\S+)")
# The line that ends a MetaImage header.
_LAST_LINE = re.compile(rb"(?m)^\s*ElementDataFile\s*=[^\n]*$")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST_LINE = 2000
# More than any image has; MetaIO writes beyond its arrays from 11 on.
_MOST_DIMENSIONS = 5


def read_image(path: str | os.PathLike, filler: str = "the air value") -> sitk.Image:
    """Read exactly the named file; ``filler`` is what messages propose in place of voxels that are no numbers.

    Raises:
        InputError: as :func:`read_header`, cut short, or NIfTI voxels that are no numbers.
    """
    if is_nifti_name(path):
        check_nifti(path, filler)
    with _opened(path) as reader:
        check_stored(Path(path), reader, _voxel_bytes(reader))
        image = reader.Execute()
    if is_nifti_name(path):
        return without_lone_intercept(path, image)
    return in_meaning(Path(path), image)


def read_header(path: str | os.PathLike) -> sitk.ImageFileReader:
    """A reader that holds the header (size, spacing, metadata) of exactly the named file.

    Raises:
        InputError: not an image; no usable place in space; or more voxels announced than the file can hold.
    """
    with _opened(path) as reader:
        return reader


def read_dicom_image(path: str | os.PathLike) -> sitk.Image:
    """The pixels of one DICOM file as GDCM decodes them, by the file's one slope and intercept; no place is checked.

    Raises:
        InputError: they cannot be decoded.
    """
    with refusing(f"{path} could not be decoded (damaged, or an unusual compression); export it uncompressed."):
        return _reader(Path(path), Path(path), "GDCMImageIO").Execute()


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[sitk.ImageFileReader]:
    """A reader that has read the header, once it is known to be such that ITK survives it."""
    location = Path(path)
    if is_nifti_name(path):
        check_place(path)
    elif location.suffix.lower() in _META_IMAGE:
        _check_meta_image(location)
    if _beginning(location).startswith(hdf5.SIGNATURE):
        _check_hdf5(location)
    with refusing(lambda error: _sentence(path, error)), _alone(path) as opened:
        # ITK knows these by their endings, in small letters only.
        kind = _BY_ENDING.get(location.suffix.lower(), "") if location.suffix.isupper() else ""
        reader = _reader(location, opened, kind)
        check_lengths(location, _beginning(location))
        if not 2 <= reader.GetDimension() <= _MOST_DIMENSIONS:
            raise _wrong_dimensions(path, reader.GetDimension())
        if reader.GetDimension() == 3:
            try:
                Grid.from_sitk(reader)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        yield reader


def _reader(path: Path, opened: Path, kind: str = "") -> sitk.ImageFileReader:
    """The one place where ITK opens an image: ``path`` by the name ``opened``."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(opened))
    reader.ReadImageInformation()
    if not (path.name.lower().endswith(_HEADERS_ALONE) or _ELSEWHERE.search(_beginning(path))):
        _check_announced(reader, path)
    return reader


def _check_meta_image(path: Path) -> None:
    """MetaIO writes beyond its buffers where a header has many dimensions, or goes on into the voxels."""
    head = _beginning(path)
    end = _LAST_LINE.search(head)
    if head and (
        end is None
        or _CONTROL.search(head[: end.end()])
        or max(map(len, head[: end.end()].split(b"\n"))) > _LONGEST_LINE
    ):
        raise InputError(f"{path} could not be read as an image: its header is damaged; copy or export it again.")
    for count in _DIMENSIONS.findall(head[: end.end()] if end else b""):
        if not (count.isdigit() and 2 <= int(count[:9]) <= _MOST_DIMENSIONS):
            raise _wrong_dimensions(path, count.decode(errors="replace")[:20])


def _check_hdf5(path: Path) -> None:
    """The HDF5 library ends the process on a damaged file, and ITK looks for it under any name."""
    try:
        hdf5.read_datasets(path.read_bytes())
    except hdf5.DamagedError as error:
        raise InputError(
            f"{path} could not be read as an image: it is a damaged or unusual HDF5 file; convert it to NIfTI or NRRD."
        ) from error


def _wrong_dimensions(path: str | os.PathLike, count: object) -> InputError:
    return InputError(f"{path} announces {count} dimensions; give one 3D volume.")


def _beginning(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read, of which ITK's refusal tells."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MOST_HEADER)
    except OSError:
        return b""


def _voxel_bytes(reader: sitk.ImageFileReader) -> int:
    pixel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID(), reader.GetNumberOfComponents())
    return reader.GetNumberOfComponents() * pixel.GetSizeOfPixelComponent()


def _check_announced(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse a header that announces more voxels than the file can hold."""
    announced = math.prod(reader.GetSize()) * _voxel_bytes(reader)
    size = path.stat().st_size
    # A side beyond 32 bits comes out of the reader as 0 or small.
    if announced == 0 or announced > max(_ALWAYS_ALLOWED_BYTES, _DENSEST * size):
        raise InputError(
            f"{path} announces {announced / 2**20:.0f} MiB of voxels but holds {size / 2**20:.1f} MiB; it is cut "
            "short or damaged, copy or export it again."
        )


def place_notes(path: str | os.PathLike, grid: Grid) -> tuple[str, ...]:
    """Sentences where a file does not say where its voxels lie, or says it twice; ``grid`` is what ITK made of it."""
    if is_nifti_name(path):
        return frame_notes(path, grid)
    fields = next((fields for ends, fields in _PLACE_FIELDS.items() if str(path).lower().endswith(ends)), ())
    if str(path).lower().endswith((".tif", ".tiff")):
        return (f"{path} is a TIFF, which holds no position and no distance of slices; 0 and 1 mm were used.",)
    if not fields:
        return ()
    head = _beginning(Path(path))
    lines = [re.split("[:=]", line, maxsplit=1) for line in head.decode("latin-1").splitlines()[:400]]
    # A NRRD axis of unknown spacing is "nan"; ITK takes it for 1 mm.
    names = {words[0].strip().lower() for words in lines if "nan" not in words[-1].lower().replace(",", " ").split()}
    kinds = ("spacing", "position")
    lacking = [
        kind for kind, any_of in zip(kinds, fields, strict=True) if not any(name.lower() in names for name in any_of)
    ]
    notes: tuple[str, ...] = ()
    if lacking:
        how = " ".join(["at 0"] * ("position" in lacking) + ["with voxels of 1 mm"] * ("spacing" in lacking))
        notes += (f"{path} states no {' and no '.join(lacking)}; it was read as if it lay {how}.",)
    nrrd = nrrd_fields(head)
    space = nrrd.get("space", "")
    if nrrd.get("space origin") and not _PATIENT_SPACE.search(space):
        stated = f"space {space}" if space else "no space"
        notes += (f"{path} does not say how it lies in the patient ({stated}); it was read as LPS.",)
    return notes


def _alone(path: str | os.PathLike) -> AbstractContextManager[Path]:
    return named_alone(Path(path)) if is_nifti_name(path) else nullcontext(Path(path))


def _sentence(path: str | os.PathLike, error: Exception) -> str:
    location = Path(path)
    if isinstance(error, OSError):
        return f"{path} could not be opened ({error.strerror}); check its permissions."
    if location.is_file() and location.stat().st_size == 0:
        return f"{path} is empty; copy or export it again."
    for start, what in _OTHERS.items():
        if _beginning(location).lstrip()[:40].lower().startswith(start):
            return f"{path} is {what}, not an image; obtain the file itself."
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
    last = _OBJECTS.sub("", last)
    return "" if "Unable to determine ImageIO" in last or "does not exist" in last else last.rstrip(".!")[:160]
