"""DICOM headers with their sequences, which SimpleITK does not give: a small strict reader that ends at the pixels.

Only the tags listed below are kept. Every length is checked against the file, so a damaged header is refused quickly.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import InputError

TAGS = {
    "SOPClass": 0x00080016,
    "SOPInstance": 0x00080018,
    "ImageType": 0x00080008,
    "SeriesDate": 0x00080021,
    "AcquisitionDate": 0x00080022,
    "StudyDate": 0x00080020,
    "ContentTime": 0x00080033,
    "AcquisitionTime": 0x00080032,
    "Modality": 0x00080060,
    "Patient": 0x00100020,
    "SeriesDescription": 0x0008103E,
    "FrameType": 0x00089007,
    "SliceThickness": 0x00180050,
    "EchoTime": 0x00180081,
    "EchoNumber": 0x00180086,
    "SpacingBetweenSlices": 0x00180088,
    "TriggerTime": 0x00181060,
    "ConvolutionKernel": 0x00181210,
    "EffectiveEchoTime": 0x00189082,
    "DiffusionBValue": 0x00189087,
    "SeriesInstance": 0x0020000E,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "Position": 0x00200032,
    "Orientation": 0x00200037,
    "FrameOfReference": 0x00200052,
    "TemporalPosition": 0x00200100,
    "StackID": 0x00209056,
    "TemporalPositionIndex": 0x00209128,
    "FrameAcquisitionNumber": 0x00209156,
    "CardiacPhase": 0x00209241,
    "Photometric": 0x00280004,
    "Frames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "SegmentationType": 0x00620001,
    "SegmentNumber": 0x00620004,
    "SegmentLabel": 0x00620005,
    "ReferencedSegment": 0x0062000B,
    "TransferSyntax": 0x00020010,
    "MediaStorageSOPClass": 0x00020002,
    # Sequences.
    "FrameContent": 0x00209111,
    "PlanePosition": 0x00209113,
    "PlaneOrientation": 0x00209116,
    "PixelMeasures": 0x00289110,
    "PixelValueTransformation": 0x00289145,
    "MREcho": 0x00189114,
    "MRDiffusion": 0x00189117,
    "CardiacSynchronization": 0x00189118,
    "ModalityTable": 0x00283000,
    "CTImageFrameType": 0x00189329,
    "MRImageFrameType": 0x00189226,
    "Detector": 0x00540022,
    "Segments": 0x00620002,
    "SegmentIdentification": 0x0062000A,
    "SharedGroups": 0x52009229,
    "FrameGroups": 0x52009230,
}
_NAMES = {tag: name for name, tag in TAGS.items()}
_PIXELS, _ITEM, _ITEM_END, _SEQUENCE_END = 0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
_IMPLICIT, _BIG, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_MOST_DEPTH, _MOST_VALUE, _MOST_ELEMENTS, _MOST_INFLATED = 12, 1 << 16, 1_000_000, 1 << 29


@dataclass
class Dataset:
    """Kept elements of a data set or item by the names of ``TAGS``; sequences are lists of data sets."""

    values: dict[str, bytes] = field(default_factory=dict)
    sequences: dict[str, list[Dataset]] = field(default_factory=dict)
    big_endian: bool = False

    def text(self, name: str) -> str:
        """A text value without its padding; empty where it is absent."""
        return self.values.get(name, b"").decode("utf-8", "replace").strip(" \0")

    def numbers(self, name: str) -> list[float]:
        """Numbers written as text; empty where they are absent or no numbers."""
        try:
            values = [float(part) for part in self.text(name).split("\\")]
        except ValueError:
            return []
        return values if np.isfinite(values).all() else []

    def number(self, name: str, default: float | None = None) -> float | None:
        values = self.numbers(name)
        return values[0] if values else default

    def short(self, name: str, default: int = 0) -> int:
        """An unsigned 16-bit value."""
        value = self.values.get(name, b"")
        return struct.unpack(">H" if self.big_endian else "<H", value[:2])[0] if len(value) >= 2 else default

    def double(self, name: str) -> float | None:
        """A 64-bit floating-point value."""
        value = self.values.get(name, b"")
        return struct.unpack(">d" if self.big_endian else "<d", value[:8])[0] if len(value) >= 8 else None

    def items(self, name: str) -> list[Dataset]:
        return self.sequences.get(name, [])

    def first(self, name: str) -> Dataset | None:
        items = self.items(name)
        return items[0] if items else None


@dataclass
class Header:
    """A DICOM file up to its pixels.

    Attributes:
        path: the file.
        data: its elements.
        pixels: offset and length of the pixel data in ``content``, length None where compressed; None without pixels.
    """

    path: Path
    data: Dataset
    pixels: tuple[int, int | None] | None

    @property
    def sop_class(self) -> str:
        return self.data.text("SOPClass") or self.data.text("MediaStorageSOPClass")

    @property
    def frames(self) -> int:
        return max(1, int(self.data.number("Frames", 1) or 1))

    def native_pixels(self) -> np.ndarray | None:
        """Stored values (frames, rows, columns) without any rescaling; None where they are compressed.

        Raises:
            InputError: cut short.
        """
        syntax = self.data.text("TransferSyntax")
        if self.pixels is None or self.pixels[1] is None or syntax == _DEFLATED:
            return None
        shape = (self.frames, self.data.short("Rows"), self.data.short("Columns"))
        bits = self.data.short("BitsAllocated")
        count = int(np.prod(shape, dtype=np.int64))
        needed = (count * bits + 7) // 8
        with open(self.path, "rb") as stream:
            stream.seek(self.pixels[0])
            content = stream.read(min(needed, self.pixels[1]))
        if len(content) < needed:
            raise InputError(f"{self.path} is cut short (its pixels end too early); copy or export it again.")
        if bits == 1:
            return np.unpackbits(np.frombuffer(content, np.uint8), count=count, bitorder="little").reshape(shape)
        if bits not in (8, 16, 32):
            return None
        kind = "i" if self.data.short("PixelRepresentation") else "u"
        order = ">" if self.data.big_endian else "<"
        return np.frombuffer(content, f"{order}{kind}{bits // 8}").reshape(shape)


def read_header(path: Path) -> Header | None:
    """The header of a DICOM file; None for other files.

    Raises:
        InputError: DICOM, but cut short or damaged.
    """
    with open(path, "rb") as stream:
        start = stream.read(132)
        if start[128:] == b"DICM":
            offset = 132
        elif _looks_bare(start):
            offset = 0
        else:
            return None
        stream.seek(offset)
        try:
            header = _read(path, stream, strict=offset == 0)
            return header if offset or header.sop_class else None
        except (_Damaged, struct.error, zlib.error, RecursionError) as error:
            if offset == 0:
                return None
            raise InputError(
                f"{path} is a DICOM file that is cut short or damaged; copy or export it again, or leave it out."
            ) from error


class _Damaged(Exception):
    """A length or tag that cannot be."""


def _looks_bare(start: bytes) -> bool:
    """True for a data set without the preamble: the first element is of group 2 or 8."""
    if len(start) < 16 or start[:2] not in (b"\x02\0", b"\x08\0") or start[3] != 0:
        return False
    return start[4:6].isalpha() and start[4:6].isupper() or struct.unpack("<I", start[4:8])[0] < 256


def _read(path: Path, stream: BinaryIO, strict: bool) -> Header:
    meta = _Reader(stream, explicit=True, big_endian=False)
    data = meta.file_meta()
    syntax = data.text("TransferSyntax")
    if syntax == _DEFLATED:
        stream = io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(), _MOST_INFLATED))
    explicit = syntax != _IMPLICIT
    if not syntax:
        here = stream.tell()
        explicit = stream.read(6)[4:6].isalpha()
        stream.seek(here)
    reader = _Reader(stream, explicit, syntax == _BIG, strict)
    body = reader.dataset(reader.size, 0)
    body.values = {**data.values, **body.values}
    return Header(path, body, reader.pixels)


class _Reader:
    """Walks through the elements of one stream."""

    def __init__(self, stream: BinaryIO, explicit: bool, big_endian: bool, strict: bool = False) -> None:
        """``strict``: tags must ascend, or it is another kind of file."""
        self.strict = strict
        self.stream, self.explicit, self.big_endian = stream, explicit, big_endian
        self.order = ">" if big_endian else "<"
        self.pixels: tuple[int, int | None] | None = None
        self.elements = 0
        here = stream.tell()
        self.size = stream.seek(0, io.SEEK_END)
        stream.seek(here)

    def file_meta(self) -> Dataset:
        """Elements of group 2, which are always explicit and little-endian."""
        data = Dataset()
        while (here := self.stream.tell()) < self.size:
            if self.stream.read(2) != b"\x02\0":
                self.stream.seek(here)
                break
            self.stream.seek(here)
            tag, _, length = self._element()
            self._value(data, tag, length)
        return data

    def dataset(self, end: int, depth: int) -> Dataset:
        """Elements up to ``end`` or the item's delimiter; at the top up to the pixels."""
        if depth > _MOST_DEPTH:
            raise _Damaged
        data = Dataset(big_endian=self.big_endian)
        last = -1
        while self.stream.tell() + 8 <= end:
            tag, kind, length = self._element()
            if tag in (_ITEM_END, _SEQUENCE_END):
                break
            if depth == 0 and self.strict and tag <= last:
                raise _Damaged
            last = tag
            if depth == 0 and tag == _PIXELS:
                self.pixels = (self.stream.tell(), None if length == _UNDEFINED else length)
                if length == _UNDEFINED:
                    self._check_fragments(max(1, int(data.number("Frames", 1) or 1)))
                    self._check_rest(self.stream.tell())
                else:
                    self._check_rest(self._end(length))
                break
            name = _NAMES.get(tag)
            if kind == b"SQ" or length == _UNDEFINED or (name in _SEQUENCES and not self.explicit):
                wanted = name in _SEQUENCES
                if not wanted and length != _UNDEFINED:
                    self._skip(length)
                    continue
                items = list(self._items(length, depth, implicit=kind == b"UN"))
                if wanted and name:
                    data.sequences[name] = items
            else:
                self._value(data, tag, length)
        return data

    def _check_fragments(self, frames: int) -> None:
        """Refuse compressed pixels that the file cuts short, or of fewer fragments than frames.

        The mark at their end is not asked for: some writers leave it out, and GDCM does without.
        """
        fragments = -1
        while self.stream.tell() + 8 <= self.size:
            tag, length = self._tag(), struct.unpack(f"{self.order}I", self.stream.read(4))[0]
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise _Damaged
            # The first item holds the offsets of the others.
            fragments += 1
            self._skip(length)
        if fragments < frames:
            raise _Damaged

    def _check_rest(self, start: int) -> None:
        """Refuse what follows the pixels and is neither zeros nor elements that the file can hold.

        GDCM takes the memory that a length announces before it looks whether the file has as much.
        """
        self.stream.seek(start)
        while self.stream.tell() + 8 <= self.size:
            here = self.stream.tell()
            if self._tag() == 0:
                return
            self.stream.seek(here)
            _, _, length = self._element()
            if length == _UNDEFINED:
                return
            self._skip(length)

    def _items(self, length: int, depth: int, implicit: bool) -> Iterator[Dataset]:
        explicit, self.explicit = self.explicit, self.explicit and not implicit
        end = self.size if length == _UNDEFINED else self._end(length)
        while self.stream.tell() + 8 <= end:
            tag, size = self._tag(), struct.unpack(f"{self.order}I", self.stream.read(4))[0]
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                raise _Damaged
            stop = self.size if size == _UNDEFINED else self._end(size)
            yield self.dataset(stop, depth + 1)
            if size != _UNDEFINED:
                self.stream.seek(stop)
        self.explicit = explicit

    def _tag(self) -> int:
        group, element = struct.unpack(f"{self.order}2H", self.stream.read(4))
        return group << 16 | element

    def _element(self) -> tuple[int, bytes, int]:
        """Tag, value representation (empty in implicit files) and length."""
        self.elements += 1
        if self.elements > _MOST_ELEMENTS:
            raise _Damaged
        tag = self._tag()
        if not self.explicit or tag >> 16 == 0xFFFE:
            return tag, b"", struct.unpack(f"{self.order}I", self.stream.read(4))[0]
        kind = self.stream.read(2)
        if kind in _LONG_FORM:
            return tag, kind, struct.unpack(f"{self.order}2xI", self.stream.read(6))[0]
        if not (kind.isalpha() and kind.isupper()):
            raise _Damaged
        return tag, kind, struct.unpack(f"{self.order}H", self.stream.read(2))[0]

    def _value(self, data: Dataset, tag: int, length: int) -> None:
        name = _NAMES.get(tag)
        if name is None or length > _MOST_VALUE:
            self._skip(length)
            return
        self._end(length)
        data.values[name] = self.stream.read(length)

    def _skip(self, length: int) -> None:
        self.stream.seek(self._end(length))

    def _end(self, length: int) -> int:
        end = self.stream.tell() + length
        if end > self.size:
            raise _Damaged
        return end


_SEQUENCES = frozenset(
    {
        "FrameContent",
        "PlanePosition",
        "PlaneOrientation",
        "PixelMeasures",
        "PixelValueTransformation",
        "MREcho",
        "MRDiffusion",
        "CardiacSynchronization",
        "ModalityTable",
        "CTImageFrameType",
        "MRImageFrameType",
        "Detector",
        "Segments",
        "SegmentIdentification",
        "SharedGroups",
        "FrameGroups",
    }
)
