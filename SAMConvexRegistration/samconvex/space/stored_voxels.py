"""What ITK takes on trust about voxels in a file: compressed data that are damaged, lists that end early, slopes.

MetaIO gives uninitialized memory where it cannot decompress, or where a list names fewer files than there are slices;
NrrdIO ignores checksums; neither MetaIO's slope and offset nor NRRD's units of length are used. What ITK does notice
(files that are missing or too short) is left to it.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from ..errors import InputError

_BLOCK_BYTES = 1 << 22
# zlib's sign for "zlib or gzip, as the data say".
_EITHER = 47
_GIPL_HEADER, _MRC_HEADER, _MRC_EXTENSION = 256, 1024, 92
_MOST_PAGES, _MOST_HEADER = 100_000, 1 << 18
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 16: 8}
_LENGTHS = {"m", "meter", "cm", "um", "µm", "μm", "micron", "microns", "micrometer", "nm", "in", "inch", "inches"}
_DAMAGED = "{} could not be read because it is cut short or damaged; copy or export it again."


def check_stored(path: Path, reader: sitk.ImageFileReader, voxel_bytes: int) -> None:
    """Refuse a file whose voxels ITK would make up.

    Args:
        reader: holds the header of the file.
        voxel_bytes: of one voxel.

    Raises:
        InputError: cut short, damaged, or a list that names too few files.
    """
    size = reader.GetSize()
    expected = math.prod(size) * voxel_bytes
    name = path.name.lower()
    with open(path, "rb") as stream:
        start = stream.read(4)
    if name.endswith((".mha", ".mhd")):
        _check_meta_image(path, size, expected)
    elif start == b"NRRD":
        _check_nrrd(path, expected)
    elif name.endswith(".gipl.gz"):
        _check_stream(path, path, 0, _GIPL_HEADER + expected)
    elif start in (b"II*\0", b"MM\0*"):
        _check_tiff(path)
    elif name.endswith((".gipl", ".vtk", ".mrc", ".rec")):
        _check_length(path, expected)


def in_meaning(path: Path, image: sitk.Image) -> sitk.Image:
    """The image in the values that a MetaImage header's slope and offset give, which ITK leaves out."""
    if not path.name.lower().endswith((".mha", ".mhd")):
        return image
    fields = _meta_fields(_head(path))[0]
    slope, offset = (
        _number(fields.get(f"ElementToIntensityFunction{kind}", ""), usual)
        for kind, usual in (("Slope", 1.0), ("Offset", 0.0))
    )
    if slope in (0.0, 1.0) and offset == 0.0:
        return image
    kind = sitk.sitkFloat64 if image.GetPixelID() in (sitk.sitkFloat64, sitk.sitkInt32) else sitk.sitkFloat32
    return sitk.Cast(image, kind) * (slope or 1.0) + offset


def nrrd_fields(head: bytes) -> dict[str, str]:
    """Fields of a NRRD header, names in small letters; empty for other contents."""
    if not head.startswith(b"NRRD"):
        return {}
    text = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].decode("latin-1")
    pairs = (line.partition(":") for line in text.splitlines()[1:] if not line.startswith("#"))
    return {name.strip().lower(): value.strip() for name, mark, value in pairs if mark and not value.startswith("=")}


def check_lengths(path: Path, head: bytes) -> None:
    """Raise InputError for a NRRD header whose lengths are in another unit than mm, which ITK does not look at."""
    fields = nrrd_fields(head)
    for name in ("space units", "units"):
        for unit in re.findall(r'"([^"]*)"', fields.get(name, "")):
            if unit.strip().lower() in _LENGTHS:
                raise InputError(f"{path} gives its lengths in {unit} ({name}); write its header in mm.")


def _head(path: Path) -> bytes:
    """The first bytes, in which a text header lies."""
    with open(path, "rb") as stream:
        return stream.read(_MOST_HEADER)


def _number(text: str, usual: float) -> float:
    try:
        value = float(text.split()[0])
    except (IndexError, ValueError):
        return usual
    return value if math.isfinite(value) else usual


def _meta_fields(content: bytes) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, and where it ends."""
    end = re.search(rb"(?m)^\s*ElementDataFile\s*=[^\n]*\n?", content)
    stop = end.end() if end else len(content)
    pairs = (line.partition("=") for line in content[:stop].decode("latin-1").splitlines())
    return {name.strip(): value.strip() for name, mark, value in pairs if mark}, stop


def _check_meta_image(path: Path, size: Sequence[int], expected: int) -> None:
    fields, stop = _meta_fields(_head(path))
    words = fields.get("ElementDataFile", "").split()
    compressed = fields.get("CompressedData", "").lower().startswith(("t", "1"))
    if not words:
        return
    if words[0].upper() == "LIST":
        listed = [line for line in path.read_bytes()[stop:].splitlines() if line.strip()]
        _check_count(path, len(listed), _number(" ".join(words[1:]), len(size) - 1), size)
    elif "%" in words[0] and len(words) == 4:
        first, last, step = (int(_number(word, 1)) for word in words[1:])
        _check_count(path, (last - first) // max(1, step) + 1, len(size) - 1, size)
    elif compressed and words[0].upper() == "LOCAL":
        length = int(_number(fields.get("CompressedDataSize", ""), 0))
        if length <= 0:
            raise InputError(
                f"{path} states no CompressedDataSize, without which its voxels cannot be read; save it uncompressed."
            )
        _check_stream(path, path, stop, expected, length)
    elif compressed:
        file = path.parent / fields["ElementDataFile"]
        if file.is_file():
            _check_stream(path, file, 0, expected)


def _check_count(path: Path, files: int, dimensions: float, size: Sequence[int]) -> None:
    needed = math.prod(size[int(dimensions) :])
    if files < needed:
        raise InputError(f"{path} names {files} data files but needs {needed}; add the others or correct its DimSize.")


def _check_nrrd(path: Path, expected: int) -> None:
    head = _head(path)
    fields = nrrd_fields(head)
    if fields.get("encoding", "").lower() not in ("gzip", "gz") or int(_number(fields.get("line skip", ""), 0)):
        return
    file, start = path, 0
    detached = fields.get("data file") or fields.get("datafile")
    if detached:
        file = path.parent / detached
        if not file.is_file():
            return
    elif end := re.search(rb"\r?\n\r?\n", head):
        start = end.end()
    _check_stream(path, file, start, expected)


def _check_stream(path: Path, file: Path, start: int, expected: int, length: int | None = None) -> None:
    """Refuse ``path`` where the compressed data in ``file`` are damaged or hold too few bytes."""
    held, decoder = 0, zlib.decompressobj(_EITHER)
    try:
        with open(file, "rb") as stream:
            stream.seek(start)
            left = length if length is not None else file.stat().st_size
            data = b""
            while data or left > 0:
                if not data:
                    data = stream.read(min(_BLOCK_BYTES, left))
                    left -= len(data)
                    if not data:
                        break
                if decoder.eof:
                    if held >= expected or not data.startswith(b"\x1f\x8b"):
                        break
                    decoder = zlib.decompressobj(_EITHER)
                held += len(decoder.decompress(data, _BLOCK_BYTES))
                data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    except (OSError, zlib.error):
        held = -1
    if held < expected or not decoder.eof:
        raise InputError(_DAMAGED.format(path))


def _check_length(path: Path, expected: int) -> None:
    """ITK fills .gipl, .mrc and binary .vtk files that were cut short without a word."""
    with open(path, "rb") as stream:
        head = stream.read(_MRC_HEADER)
    ending, before = path.suffix.lower(), 0
    if ending == ".vtk" and b"\nASCII" in head:
        return
    if ending == ".gipl":
        before = _GIPL_HEADER
    elif ending == ".vtk":
        table = re.search(rb"\nLOOKUP_TABLE [^\n]*\n", head)
        before = table.end() if table else 0
    elif len(head) == _MRC_HEADER:
        order = ">" if head[212:214] == b"\x11\x11" else "<"
        before = _MRC_HEADER + max(0, struct.unpack_from(f"{order}i", head, _MRC_EXTENSION)[0])
    if path.stat().st_size < before + expected:
        raise InputError(_DAMAGED.format(path))


def _check_tiff(path: Path) -> None:
    """ITK leaves out the pages of a TIFF that lie beyond its end."""
    size = path.stat().st_size
    with open(path, "rb") as stream, contextlib.suppress(struct.error):
        order = "<" if stream.read(4)[:2] == b"II" else ">"
        (place,) = struct.unpack(f"{order}I", stream.read(4))
        for _ in range(_MOST_PAGES):
            if place == 0:
                return
            stream.seek(place)
            (count,) = struct.unpack(f"{order}H", stream.read(2))
            entries = stream.read(12 * count)
            (place,) = struct.unpack(f"{order}I", stream.read(4))
            for entry in range(count):
                _tag, kind, values = struct.unpack_from(f"{order}2HI", entries, 12 * entry)
                (value,) = struct.unpack_from(f"{order}I", entries, 12 * entry + 8)
                if values * _TIFF_BYTES.get(kind, 1) > 4 and value + values * _TIFF_BYTES.get(kind, 1) > size:
                    raise InputError(_DAMAGED.format(path))
    if place:
        raise InputError(_DAMAGED.format(path))
