"""What ITK's NIfTI reader hides: which file it opens, what was cut short, what was no number, which frame it chose.

Beside ``ct.nii.gz`` ITK opens ``ct.nii``; it fills a file that was cut short with zeros, turns NaN and infinity into 0,
and falls back to another frame where it cannot use the first.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .grid import FARTHEST_MM, Grid

ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img")

_BLOCK_BYTES = 1 << 24
# NIfTI-1 and Analyze headers begin with their own size.
_HEADER_BYTES = 348
_NIFTI_START = 352
_NIFTI2_HEADER_BYTES = 540
_UNREAD_KINDS = {1: "single bits", 32: "complex numbers", 1792: "complex numbers", 2048: "complex numbers"}
_UNREAD_KINDS[1536] = "numbers of 128 bits"
_FLOATS = {16: "f4", 64: "f8"}
_PARTNER = {".hdr": ".img", ".img": ".hdr"}
_FRAME_MM = 1.0
_STRAIGHT_DEGREES = 0.1
# Rounding in headers stays far below; over 500 voxels of 1 mm it moves the last by half a millimeter.
_SAME_LENGTH = 1e-3


def is_nifti_name(path: str | os.PathLike) -> bool:
    """True where the ending belongs to NIfTI or Analyze."""
    return str(path).lower().endswith(ENDINGS)


@contextmanager
def named_alone(path: Path) -> Iterator[Path]:
    """Give a path under which ITK opens exactly ``path``: itself, or a link in a folder without its twins.

    ITK looks for the voxels by the name without its ending, and for compression by the ending.
    """
    ending = _ending(path)
    right = ending
    if ending.startswith(".nii"):
        right = ".nii.gz" if _is_gzip(path) else ".nii"
    wanted = {path: right}
    partner = _partner(path)
    if partner is not None:
        wanted[partner] = _ending(partner)
    twins = [other for other in _same_stem(path) if other not in wanted]
    if not twins and all(file.name.endswith(right) for file, right in wanted.items()):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="samconvex-") as folder:
        for file, right in wanted.items():
            _link(file, Path(folder) / f"image{right}")
        yield Path(folder) / f"image{right if len(wanted) == 1 else ending}"


def _ending(path: Path) -> str:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _same_stem(path: Path) -> list[Path]:
    stem = path.name[: -len(_ending(path))].lower()
    names = {stem + ending for ending in ENDINGS}
    try:
        return sorted(other for other in path.parent.iterdir() if other.name.lower() in names)
    except OSError:
        # A folder that may not be listed: each name is asked for.
        return [other for other in (path.with_name(name) for name in sorted(names)) if other.exists()]


def _partner(path: Path) -> Path | None:
    """The other file of a .hdr/.img pair, of the same compression where there are two."""
    ending = _ending(path)
    other = _PARTNER.get(ending.removesuffix(".gz"))
    if other is None:
        return None
    found = {_ending(file): file for file in _same_stem(path) if _ending(file).removesuffix(".gz") == other}
    same = other + ".gz" * ending.endswith(".gz")
    return found.get(same) or next(iter(found.values()), None)


def _link(source: Path, target: Path) -> None:
    source = source.resolve()
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source, target)
            return
        except OSError:
            # Windows reserves links to privileged users, and hard links end at the disk.
            continue
    raise InputError(f"{source} could not be opened; check its permissions.")


def check_nifti(path: str | os.PathLike, filler: str = "the air value") -> None:
    """Raise InputError where a NIfTI file or pair is incomplete or holds voxels that are no numbers.

    ``filler`` names what could stand in their place.

    Costs a look at the header and, for gzip files, at the length stored at their end; only images of floating-point
    numbers (and unusual gzip files) are read through. Files with another header are left to ITK.
    """
    location = Path(path)
    header = _header(location)
    layout = _layout(header)
    if layout is None:
        return
    if header[344:347] == b"n+1" and layout.offset < _NIFTI_START:
        raise InputError(
            f"{path} says that its voxels begin within its header (vox_offset {layout.offset}); correct it to 352 or "
            "export it again."
        )
    voxels = location
    if header[344:347] == b"ni1":
        image = location if _ending(location).startswith(".img") else _partner(location)
        if image is None:
            raise InputError(f"{path} has no .img file beside it, which holds its voxels; copy both files.")
        voxels = image
    left = 0
    try:
        zipped = _is_gzip(voxels)
        with _open(voxels, zipped) as stream:
            if layout.dtype is None and _has_stored_size(voxels, zipped, layout):
                return
            stream.seek(layout.offset)
            left = layout.voxel_bytes
            while left and (block := stream.read(min(_BLOCK_BYTES, left))):
                left -= len(block)
                numbers = layout.dtype is not None and len(block) % np.dtype(layout.dtype).itemsize == 0
                if numbers and not np.isfinite(np.frombuffer(block, layout.dtype)).all():
                    raise InputError(
                        f"{path} holds NaN or infinite voxels; replace them (for example by {filler}) and retry."
                    )
    except (EOFError, OSError, zlib.error):
        left = -1
    if left:
        raise InputError(f"{path} could not be read because it is cut short or damaged; copy or export it again.")


def check_place(path: str | os.PathLike) -> None:
    """Raise InputError where a NIfTI-1 header's place holds NaN or infinity; ITK would look for its axes for ever."""
    header = _header(Path(path))
    if len(header) < _HEADER_BYTES or header[344:347] not in (b"n+1", b"ni1"):
        return
    # As ITK's reader tells the byte order, which does not look at the header's own size.
    order = "<" if 1 <= struct.unpack("<h", header[40:42])[0] <= 7 else ">"
    numbers = struct.unpack(f"{order}26f", header[76:108] + header[256:328])
    if not all(abs(number) < FARTHEST_MM for number in numbers):
        raise InputError(f"{path} has a header whose place in space is no number; correct it or export it again.")
    frames = _frames(header)
    if frames is not None and frames.qform_code <= 0 < frames.sform[0]:
        _check_sform_alone(path, frames)


def _check_sform_alone(path: str | os.PathLike, frames: _Frames) -> None:
    """Beside an sform without a qform, ITK takes pixdim for the lengths of its axes; a sheared one it refuses."""
    if _shear_degrees(frames.sform[1]) > _STRAIGHT_DEGREES:
        return
    lengths = np.linalg.norm(frames.sform[1][:, :3], axis=0)
    if np.allclose(lengths, np.abs(frames.pixdim), rtol=_SAME_LENGTH, atol=0.0):
        return
    stated, meant = (" x ".join(f"{value:.4g}" for value in values) for values in (frames.pixdim, lengths))
    raise InputError(
        f"{path} gives voxels of {meant} mm in its sform but of {stated} mm in its pixdim; correct the header."
    )


def without_lone_intercept(path: str | os.PathLike, image: sitk.Image) -> sitk.Image:
    """The image without the scl_inter that ITK adds where scl_slope is 0, which says that nothing is scaled."""
    header = _header(Path(path))
    order = _byte_order(header)
    if order is None:
        return image
    slope, intercept = struct.unpack(f"{order}2f", header[112:120])
    return image - intercept if slope == 0 and math.isfinite(intercept) and intercept != 0 else image


def refusal(path: str | os.PathLike) -> str | None:
    """The sentence on a NIfTI file that ITK cannot read, where its header tells why; else None."""
    header = _header(Path(path))
    if len(header) < 4:
        return None
    if _NIFTI2_HEADER_BYTES in (struct.unpack("<i", header[:4])[0], struct.unpack(">i", header[:4])[0]):
        return f"{path} is a NIfTI-2 file, which ITK cannot read; save it as NIfTI-1 or as NRRD."
    frames = _frames(header)
    if frames is None:
        return None
    kind = _UNREAD_KINDS.get(struct.unpack(f"{_byte_order(header)}h", header[70:72])[0])
    if kind:
        return f"{path} holds {kind}, which ITK cannot read; save it as whole or floating-point numbers of 32 bits."
    code, sform = frames.sform
    if code > 0 and frames.qform_code <= 0 and (angle := _shear_degrees(sform)) > _STRAIGHT_DEGREES:
        return (
            f"{path} lies on a sheared grid (sform, {angle:.1f} degrees from right angles) and has no qform to fall "
            "back on; resample it onto a straight grid first."
        )
    return None


def frame_notes(path: str | os.PathLike, grid: Grid) -> tuple[str, ...]:
    """Sentences where ``grid``, as ITK read it, is not what the header's sform says, or the header says nothing."""
    header = _header(Path(path))
    frames = _frames(header)
    if frames is None:
        if len(header) == _HEADER_BYTES and header[:4] in (
            struct.pack("<i", _HEADER_BYTES),
            struct.pack(">i", _HEADER_BYTES),
        ):
            return (f"{path} is an Analyze file, which states no position and no sides; check left and right.",)
        return ()
    code, sform = frames.sform
    if code <= 0:
        if frames.qform_code > 0:
            return ()
        return (f"{path} states no orientation (neither sform nor qform); it was read as if it lay along the axes.",)
    flip = np.diag([-1.0, -1.0, 1.0])
    voxels = grid.points_to_voxels(grid.corners())
    # ITK turns the qform's lengths into mm; the sform's are in the same unit.
    sform = sform * frames.unit_mm
    off = np.abs((voxels @ sform[:, :3].T + sform[:, 3]) @ flip - grid.corners()).max()
    if not off > _FRAME_MM:
        return ()
    return (f"{path} has two frames that differ by up to {off:.1f} mm; its qform was used, its sform was not.",)


@dataclass(frozen=True)
class _Frames:
    """Where a NIfTI-1 header says the voxels lie: the qform's code, the sform's code and (3, 4) RAS matrix."""

    qform_code: int
    sform: tuple[int, np.ndarray]
    unit_mm: float
    pixdim: np.ndarray


def _header(path: Path) -> bytes:
    """The first bytes of the file with the header; empty where they cannot be read."""
    if _ending(path).startswith(".img"):
        path = _partner(path) or path
    try:
        with _open(path, _is_gzip(path)) as stream:
            return stream.read(_HEADER_BYTES)
    except (EOFError, OSError, zlib.error):
        return b""


def _byte_order(header: bytes) -> str | None:
    """ "<" or ">" of a NIfTI-1 header, None for other contents."""
    if len(header) < _HEADER_BYTES or header[344:347] not in (b"n+1", b"ni1"):
        return None
    return next((mark for mark in "<>" if struct.unpack(f"{mark}i", header[:4])[0] == _HEADER_BYTES), None)


def _frames(header: bytes) -> _Frames | None:
    order = _byte_order(header)
    if order is None:
        return None
    qform_code, sform_code = struct.unpack(f"{order}2h", header[252:256])
    rows = np.array(struct.unpack(f"{order}12f", header[280:328])).reshape(3, 4)
    pixdim = np.array(struct.unpack(f"{order}3f", header[80:92]))
    return _Frames(qform_code, (sform_code, rows), {1: 1000.0, 3: 0.001}.get(header[123] & 7, 1.0), pixdim)


def _shear_degrees(matrix: np.ndarray) -> float:
    """How far the axes of a (3, 4) matrix are from right angles; 0 where an axis has no length."""
    lengths = np.linalg.norm(matrix[:, :3], axis=0)
    if not (lengths > 0).all():
        return 0.0
    axes = matrix[:, :3] / lengths
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(1.0, cosines))))


@dataclass(frozen=True)
class _Layout:
    """Where the voxels lie in the file, bytes, and their numpy type where it is floating point."""

    offset: int
    voxel_bytes: int
    dtype: str | None


def _open(path: Path, zipped: bool) -> BinaryIO:
    return gzip.open(path) if zipped else open(path, "rb")  # type: ignore[return-value]


def _layout(header: bytes) -> _Layout | None:
    order = _byte_order(header)
    if order is None:
        return None
    dimensions = struct.unpack(f"{order}8h", header[40:56])
    datatype, bits = struct.unpack(f"{order}2h", header[70:74])
    start = struct.unpack(f"{order}f", header[108:112])[0]
    if not 0 <= start < 2**31:
        # Also where it is no number; ITK judges the file.
        return None
    offset = int(start)
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
