"""HDF5 files read without the HDF5 library, which ends the process, or never ends, on a damaged file.

What ITK writes is read: groups, whole numbers, floats and strings, stored contiguously, compactly or in chunks
(deflate, shuffle). Every address and length is checked against the file, every structure is entered once, and
checksums are compared where the format has them. "HDF5 File Format Specification Version 3.0" names the structures.
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_SPACE, _LINK_INFO, _TYPE, _LINK, _LAYOUT, _FILTERS, _CONTINUED, _SYMBOLS = 0x1, 0x2, 0x3, 0x6, 0x8, 0xB, 0x10, 0x11
_DEFLATE, _SHUFFLE = 1, 2
_DEEPEST = 12
_MOST_STRUCTURES = 200_000
# Chunks of zeros pack this densely at most.
_DENSEST = 1100
_ALWAYS_ALLOWED_BYTES = 64 << 20
_NOWHERE = (1 << 64) - 1

Values = np.ndarray | list[bytes]


class DamagedError(ValueError):
    """The bytes are no HDF5 file of the kind that is read here."""


def read_datasets(content: bytes) -> dict[str, Values]:
    """Every dataset of a file, by its path such as "TransformGroup/0/TransformType".

    Args:
        content: the whole file.

    Returns:
        Arrays in the file's own shape and native byte order; strings as a list of bytes.

    Raises:
        DamagedError: damaged, or of a kind that ITK does not write.
    """
    try:
        return _Reader(content).datasets()
    except (struct.error, IndexError, OverflowError, zlib.error, TypeError) as error:
        raise DamagedError(str(error)) from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.seen: set[int] = set()
        self.strings: dict[int, dict[int, bytes]] = {}

    def take(self, at: int, size: int) -> bytes:
        if at < 0 or size < 0 or at + size > len(self.content):
            raise DamagedError(f"{size} bytes at {at} lie beyond the end")
        return self.content[at : at + size]

    def unpack(self, form: str, at: int) -> tuple:
        form = "<" + form
        return struct.unpack(form, self.take(at, struct.calcsize(form)))

    def enter(self, at: int, mark: bytes = b"") -> None:
        """Each structure is read once, so that no ring of addresses is followed for ever."""
        if at in self.seen or len(self.seen) > _MOST_STRUCTURES:
            raise DamagedError(f"the structure at {at} is referred to twice")
        self.seen.add(at)
        if self.take(at, len(mark)) != mark:
            raise DamagedError(f"no {mark.decode()} at {at}")

    def checked(self, at: int, size: int) -> None:
        """Compare the checksum that follows ``size`` bytes."""
        if lookup3(self.take(at, size)) != self.unpack("I", at + size)[0]:
            raise DamagedError(f"the checksum at {at + size} is wrong")

    def datasets(self) -> dict[str, Values]:
        found: dict[str, Values] = {}
        groups = [("", self._root(), 0)]
        while groups:
            name, at, depth = groups.pop()
            messages = self._messages(at)
            if any(kind == _LAYOUT for kind, _ in messages):
                found[name] = self._values(messages)
                continue
            if depth > _DEEPEST:
                raise DamagedError("groups are nested too deeply")
            groups += [(f"{name}/{link}".lstrip("/"), where, depth + 1) for link, where in self._links(messages)]
        return found

    def _root(self) -> int:
        """Address of the root group's object header."""
        if self.take(0, 8) != SIGNATURE:
            raise DamagedError("no signature")
        version = self.content[8]
        if version in (2, 3):
            self.checked(0, 44)
            sizes, (base, end, root) = self.content[9:11], (*self.unpack("Q", 12), *self.unpack("QQ", 28))
        elif version in (0, 1):
            sizes, start = self.content[13:15], 24 + 4 * version
            base, _, end, _, _, root = self.unpack("QQQQQQ", start)
        else:
            raise DamagedError(f"superblock version {version}")
        if sizes != b"\x08\x08" or base != 0 or end > len(self.content):
            raise DamagedError("cut short, or addresses of another size")
        return root

    def _messages(self, at: int) -> list[tuple[int, bytes]]:
        """Kind and data of the messages of an object header."""
        newer = self.take(at, 4) == b"OHDR"
        self.enter(at)
        if newer:
            if self.content[at + 4] != 2:
                raise DamagedError("header version")
            flags = self.content[at + 5]
            start = at + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            width = 1 << (flags & 3)
            size = int.from_bytes(self.take(start, width), "little")
            start += width
            self.checked(at, start + size - at)
            head = 6 if flags & 4 else 4
        else:
            version, _, _, _, size = self.unpack("BBHII", at)
            if version != 1:
                raise DamagedError(f"header version {version}")
            start, head = at + 16, 8
        messages: list[tuple[int, bytes]] = []
        blocks = [(start, size)]
        while blocks:
            place, size = blocks.pop(0)
            end = place + size
            self.take(place, size)
            while place + head <= end:
                kind, length, flags = self.unpack("BHB" if newer else "HHB", place)
                data = self.take(place + head, length)
                place += head + length
                if place > end or flags & 2 and kind in (_SPACE, _TYPE, _LAYOUT, _LINK, _FILTERS):
                    raise DamagedError("a message is longer than its block, or shared")
                messages.append((kind, data))
                if kind == _CONTINUED:
                    where, length = struct.unpack("<QQ", data[:16])
                    self.enter(where, b"OCHK" if newer else b"")
                    if newer:
                        self.checked(where, length - 4)
                    blocks.append((where + 4, length - 8) if newer else (where, length))
        return messages

    def _links(self, messages: list[tuple[int, bytes]]) -> list[tuple[str, int]]:
        """Name and address of what a group holds."""
        links: list[tuple[str, int]] = []
        for kind, data in messages:
            if kind == _SYMBOLS:
                tree, heap = struct.unpack("<QQ", data[:16])
                links += self._symbols(tree, heap)
            elif kind == _LINK:
                links.append(_link(data))
            elif kind == _LINK_INFO:
                start = 2 + (8 if data[1] & 1 else 0)
                heap, index = struct.unpack("<QQ", data[start : start + 16])
                if heap != _NOWHERE:
                    links += self._dense_links(heap, index)
        return links

    def _symbols(self, tree: int, heap: int) -> list[tuple[str, int]]:
        """Links of an old group: a B-tree of symbol tables, names in a local heap."""
        self.enter(heap, b"HEAP")
        size, _, names = self.unpack("QQQ", heap + 8)
        text = self.take(names, size)
        links, nodes = [], [tree]
        while nodes:
            at = nodes.pop()
            if self.take(at, 4) == b"TREE":
                self.enter(at)
                kind, _, count = self.unpack("BBH", at + 4)
                if kind != 0:
                    raise DamagedError("a tree of another kind")
                nodes += [self.unpack("Q", at + 32 + 16 * n)[0] for n in range(count)]
                continue
            self.enter(at, b"SNOD")
            (count,) = self.unpack("H", at + 6)
            for n in range(count):
                offset, where = self.unpack("QQ", at + 8 + 40 * n)
                if offset >= size:
                    raise DamagedError("a name lies beyond its heap")
                links.append((text[offset : text.index(b"\0", offset)].decode("latin-1"), where))
        return links

    def _dense_links(self, heap: int, index: int) -> list[tuple[str, int]]:
        """Links of a group with more than eight: a B-tree (one leaf) into a fractal heap (one block)."""
        self.enter(heap, b"FRHP")
        self.checked(heap, 142)
        (block_size,), (most,) = self.unpack("Q", heap + 112), self.unpack("H", heap + 128)
        block, rows = self.unpack("QH", heap + 132)
        self.enter(index, b"BTHD")
        self.checked(index, 34)
        leaf, count = self.unpack("QH", index + 16)[0], self.unpack("H", index + 24)[0]
        depth, record = self.unpack("H", index + 12)[0], self.unpack("H", index + 10)[0]
        if rows or depth or record != 11:
            raise DamagedError("a group holds too many parts")
        self.enter(block, b"FHDB")
        self.enter(leaf, b"BTLF")
        self.checked(leaf, 6 + record * count)
        self.take(block, block_size)
        links = []
        width = (most + 7) // 8
        for n in range(count):
            name = self.take(leaf + 6 + record * n + 4, 7)
            offset = int.from_bytes(name[1 : 1 + width], "little")
            length = int.from_bytes(name[1 + width :], "little")
            if name[0] or offset + length > block_size:
                raise DamagedError("a link lies beyond its block")
            links.append(_link(self.take(block + offset, length)))
        return links

    def _values(self, messages: list[tuple[int, bytes]]) -> Values:
        """The values of a dataset."""
        parts = dict(reversed(messages))
        shape, kind = _shape(parts[_SPACE]), _kind(parts[_TYPE])
        width = 16 if kind is None else np.dtype(kind).itemsize
        size = math.prod(shape) * width
        if size > max(_ALWAYS_ALLOWED_BYTES, _DENSEST * len(self.content)):
            raise DamagedError(f"{size} bytes are announced")
        data = self._stored(parts[_LAYOUT], parts.get(_FILTERS, b""), shape, width) if size else b""
        if kind is not None:
            values = np.frombuffer(data, kind).reshape(shape)
            return values.tolist() if values.dtype.kind == "S" else values.astype(values.dtype.newbyteorder("="))
        return [self._string(*struct.unpack_from("<IQI", data, 16 * n)) for n in range(size // 16)]

    def _stored(self, layout: bytes, filters: bytes, shape: tuple[int, ...], width: int) -> bytes:
        """The bytes of a dataset in row-major order."""
        version, kind = layout[0], layout[1]
        size = math.prod(shape) * width
        if version in (1, 2):
            # Rank, class and five bytes; then the address, except where the data follow at once.
            rank, kind = layout[1], layout[2]
            layout = bytes([3, kind]) + (bytes([rank]) if kind == 2 else b"") + layout[8:]
            if kind == 0:
                raise DamagedError("an old compact layout")
        elif version not in (3, 4):
            raise DamagedError(f"layout version {version}")
        if kind == 0:
            (length,) = struct.unpack_from("<H", layout, 2)
            data = layout[4 : 4 + length]
        elif kind == 1:
            if filters:
                raise DamagedError("filters of an unchunked dataset")
            data = self.take(struct.unpack_from("<Q", layout, 2)[0], size)
        elif kind == 2 and version != 4:
            return self._chunks(layout[2:], _filters(filters), shape, width)
        else:
            raise DamagedError(f"layout class {kind}")
        if len(data) < size:
            raise DamagedError("a dataset is cut short")
        return data[:size]

    def _chunks(self, layout: bytes, filters: list[int], shape: tuple[int, ...], width: int) -> bytes:
        """The bytes of a chunked dataset; its B-tree is of version 1."""
        rank, tree = layout[0], struct.unpack_from("<Q", layout, 1)[0]
        chunk = struct.unpack_from(f"<{rank}I", layout, 9)[:-1]
        if rank != len(shape) + 1 or not all(chunk) or math.prod(chunk) * width > 1 << 31:
            raise DamagedError("chunks of another rank")
        values = np.zeros((*shape, width), np.uint8)
        filled, nodes = 0, [tree]
        while nodes:
            at = nodes.pop()
            self.enter(at, b"TREE")
            kind, level, count = self.unpack("BBH", at + 4)
            if kind != 1:
                raise DamagedError("a tree of another kind")
            step = 8 + 8 * rank + 8
            for n in range(count):
                key = at + 24 + step * n
                size, mask = self.unpack("II", key)
                start = self.unpack(f"{rank}Q", key + 8)[:-1]
                (where,) = self.unpack("Q", key + 8 + 8 * rank)
                if level:
                    nodes.append(where)
                    continue
                self.enter(where)
                used = [each for bit, each in enumerate(filters) if not mask >> bit & 1]
                block = _unfiltered(self.take(where, size), used, math.prod(chunk) * width, width)
                target = values[tuple(slice(a, a + b) for a, b in zip(start, chunk, strict=True))]
                part = np.frombuffer(block, np.uint8).reshape(*chunk, width)
                target[...] = part[tuple(slice(length) for length in target.shape)]
                filled += target.size
        if filled != values.size:
            raise DamagedError("chunks are missing")
        return values.tobytes()

    def _string(self, length: int, heap: int, index: int) -> bytes:
        """A string of any length, in a global heap."""
        if heap not in self.strings:
            self.enter(heap, b"GCOL")
            self.strings[heap] = {}
            (size,) = self.unpack("Q", heap + 8)
            at, end = heap + 16, heap + size
            while at + 16 <= end:
                number, _, _, room = self.unpack("HHIQ", at)
                if number == 0:
                    break
                self.strings[heap][number] = self.take(at + 16, room)
                at += 16 + (room + 7) // 8 * 8
        text = self.strings[heap].get(index)
        if text is None or length > len(text):
            raise DamagedError("a string is missing")
        return text[:length].split(b"\0", 1)[0]


def _link(data: bytes) -> tuple[str, int]:
    """Name and address of a hard link."""
    flags, at = data[1], 2
    if data[0] != 1 or (flags & 8 and data[at] != 0):
        raise DamagedError("a link to elsewhere")
    at += bool(flags & 8) + (8 if flags & 4 else 0) + bool(flags & 16)
    width = 1 << (flags & 3)
    length = int.from_bytes(data[at : at + width], "little")
    name = data[at + width : at + width + length]
    (where,) = struct.unpack_from("<Q", data, at + width + length)
    return name.decode("utf-8", errors="replace"), where


def _shape(data: bytes) -> tuple[int, ...]:
    version, rank = data[0], data[1]
    if version not in (1, 2) or rank > 32 or (version == 2 and data[3] == 2):
        raise DamagedError("an unknown dataspace")
    return struct.unpack_from(f"<{rank}Q", data, 8 if version == 1 else 4)


def _kind(data: bytes) -> str | None:
    """The numpy type of a dataset; None for strings of any length."""
    kind, bits, (size,) = data[0] & 15, data[1], struct.unpack_from("<I", data, 4)
    order = ">" if bits & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8):
        return f"{order}{'i' if bits & 8 else 'u'}{size}"
    if kind == 1 and size in (4, 8):
        return f"{order}f{size}"
    if kind == 3 and 0 < size < 1 << 16:
        return f"S{size}"
    if kind == 9 and bits & 15 == 1 and size == 16:
        return None
    raise DamagedError(f"a datatype of class {kind}")


def _filters(data: bytes) -> list[int]:
    """Numbers of the filters in the order in which they were applied."""
    if not data:
        return []
    found, at = [], 8 if data[0] == 1 else 2
    for _ in range(data[1]):
        number, name, _, values = struct.unpack_from("<HHHH", data, at) if data[0] == 1 else _newer_filter(data, at)
        if number not in (_DEFLATE, _SHUFFLE):
            raise DamagedError(f"filter {number}")
        found.append(number)
        padded = (name + 7) // 8 * 8 + 4 * (values + values % 2) + 8
        at += padded if data[0] == 1 else 6 + 4 * values
    return found


def _newer_filter(data: bytes, at: int) -> tuple[int, int, int, int]:
    """A filter of version 2; those below 256 have no name."""
    number, flags, values = struct.unpack_from("<HHH", data, at)
    return number, 0, flags, values


def _unfiltered(data: bytes, filters: list[int], size: int, width: int) -> bytes:
    """A chunk of ``size`` bytes as it was before it was packed."""
    for number in reversed(filters):
        if number == _DEFLATE:
            data = zlib.decompressobj().decompress(data, size)
        elif len(data) % width == 0:
            data = np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
    if len(data) != size:
        raise DamagedError("a chunk is cut short")
    return data


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash "lookup3" (hashlittle, initial value 0), the checksum of HDF5's metadata."""
    mask = 0xFFFFFFFF

    def turned(value: int, by: int) -> int:
        return (value << by | value >> (32 - by)) & mask

    a = b = c = 0xDEADBEEF + len(data) & mask
    if not data:
        return c
    words = struct.unpack(f"<{(len(data) + 11) // 12 * 3}I", data + bytes(-len(data) % 12))
    for n in range(0, len(words), 3):
        a, b, c = a + words[n] & mask, b + words[n + 1] & mask, c + words[n + 2] & mask
        if n + 3 < len(words):
            a, c = (a - c & mask) ^ turned(c, 4), c + b & mask
            b, a = (b - a & mask) ^ turned(a, 6), a + c & mask
            c, b = (c - b & mask) ^ turned(b, 8), b + a & mask
            a, c = (a - c & mask) ^ turned(c, 16), c + b & mask
            b, a = (b - a & mask) ^ turned(a, 19), a + c & mask
            c, b = (c - b & mask) ^ turned(b, 4), b + a & mask
    c = (c ^ b) - turned(b, 14) & mask
    a = (a ^ c) - turned(c, 11) & mask
    b = (b ^ a) - turned(a, 25) & mask
    c = (c ^ b) - turned(b, 16) & mask
    a = (a ^ c) - turned(c, 4) & mask
    b = (b ^ a) - turned(a, 14) & mask
    return (c ^ b) - turned(b, 24) & mask
