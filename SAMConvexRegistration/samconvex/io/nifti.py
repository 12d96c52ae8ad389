"""What ITK's NIfTI reader hides: it fills a file that was cut short with zeros, and turns NaN and infinity into 0."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import InputError

_BLOCK_BYTES = 1 << 24
# NIfTI-1 and Analyze headers begin with their own size.
_HEADER_BYTES = 348
_FLOATS = {16: "f4", 64: "f8"}


def check_nifti(path: str | os.PathLike) -> None:
    """Raise InputError where a .nii or .nii.gz file is incomplete or holds voxels that are no numbers.

    Costs a look at the header and, for gzip files, at the length stored at their end; only images of floating-point
    numbers (and unusual gzip files) are read through. Files with another header are left to ITK.
    """
    location = Path(path)
    zipped = location.name.lower().endswith(".gz")
    try:
        with _open(location, zipped) as stream:
            layout = _layout(stream.read(_HEADER_BYTES))
    except (EOFError, OSError, zlib.error):
        # Not even a header: ITK says what it thinks of the file.
        return
    left = 0
    try:
        with _open(location, zipped) as stream:
            if layout is None or (layout.dtype is None and _has_stored_size(location, zipped, layout)):
                return
            stream.seek(layout.offset)
            left = layout.voxel_bytes
            while left and (block := stream.read(min(_BLOCK_BYTES, left))):
                left -= len(block)
                numbers = layout.dtype is not None and len(block) % np.dtype(layout.dtype).itemsize == 0
                if numbers and not np.isfinite(np.frombuffer(block, layout.dtype)).all():
                    raise InputError(
                        f"{path} holds NaN or infinite voxels; replace them (for example by the air value) and retry."
                    )
    except (EOFError, OSError, zlib.error):
        left = -1
    if left:
        raise InputError(f"{path} could not be read because it is cut short or damaged; copy or export it again.")


@dataclass(frozen=True)
class _Layout:
    """Where the voxels lie in the file, bytes, and their numpy type where it is floating point."""

    offset: int
    voxel_bytes: int
    dtype: str | None


def _open(path: Path, zipped: bool) -> BinaryIO:
    return gzip.open(path) if zipped else open(path, "rb")  # type: ignore[return-value]


def _layout(header: bytes) -> _Layout | None:
    if len(header) < _HEADER_BYTES or header[344:347] != b"n+1":
        return None
    order = next((mark for mark in "<>" if struct.unpack(f"{mark}i", header[:4])[0] == _HEADER_BYTES), None)
    if order is None:
        return None
    dimensions = struct.unpack(f"{order}8h", header[40:56])
    datatype, bits = struct.unpack(f"{order}2h", header[70:74])
    start = struct.unpack(f"{order}f", header[108:112])[0]
    # NaN and numbers beyond any file are left to ITK, which ignores them.
    offset = int(start) if 0 <= start < 1 << 31 else 0
    voxels = math.prod(max(1, size) for size in dimensions[1 : 1 + min(max(dimensions[0], 0), 7)])
    kind = _FLOATS.get(datatype)
    return _Layout(offset, voxels * bits // 8, order + kind if kind else None)


def _has_stored_size(path: Path, zipped: bool, layout: _Layout) -> bool:
    """True where a plain file is long enough, or a gzip file's last four bytes (its length modulo 2^32) fit."""
    expected = layout.offset + layout.voxel_bytes
    if not zipped:
        return path.stat().st_size >= expected
    with open(path, "rb") as stream:
        stream.seek(-4, os.SEEK_END)
        return struct.unpack("<I", stream.read(4))[0] == expected % (1 << 32)
