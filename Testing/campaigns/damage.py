"""Ways to damage a file: its bytes, the fields of its header, the values of its structure."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
import torch

from .seeds import Element

INTEGERS = (
    -(2**31),
    -32768,
    -1,
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    64,
    255,
    256,
    2048,
    32767,
    65535,
    2**24 + 1,
    2**31 - 1,
    2**40,
)
FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e-6, 0.5, 1e6, 1e30, 1e300, float("nan"), float("inf"), float("-inf"))
WORDS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    "NaN",
    "inf",
    "1,5",
    "x",
    "(1,0,0)",
    "\\",
    "\x00",
    "é",
    "9" * 400,
    "true",
    "RAS",
    "IJK",
)
# Stands for lists in lists in lists, deeper than Python recurses.
DEEP = "@deep@"
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
# Offset and format of a NIfTI-1 header's fields.
_NIFTI = (
    *((40 + 2 * n, "h") for n in range(8)),
    *((76 + 4 * n, "f") for n in range(8)),
    *((256 + 4 * n, "f") for n in range(18)),
    *((offset, "h") for offset in (68, 70, 72, 252, 254)),
    *((offset, "f") for offset in (108, 112, 116)),
    (0, "i"),
    (123, "b"),
    (344, "i"),
)


def pick(random: np.random.Generator, values: Any) -> Any:
    """One of ``values``."""
    return values[int(random.integers(len(values)))]


def damaged_bytes(random: np.random.Generator, content: bytes, header: int = 600) -> bytes:
    """Bits flipped, a part cut off, overwritten, doubled or left out; half of the places lie in the header."""
    data = bytearray(content)
    end = min(header, len(data)) if random.random() < 0.5 else len(data)
    if not end:
        return bytes(random.integers(0, 256, 64, dtype=np.uint8))
    start = int(random.integers(end))
    length = int(random.integers(1, 64))
    way = int(random.integers(6))
    if way == 0:
        for place in random.integers(0, end, int(random.integers(1, 17))):
            data[place] ^= 1 << int(random.integers(8))
    elif way == 1:
        del data[start:]
    elif way == 2:
        data[start : start + length] = random.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif way == 3:
        data[start : start + length] = bytes(length)
    elif way == 4:
        data[start:start] = data[start : start + length]
    else:
        del data[start : start + length]
    return bytes(data)


def damaged_nifti(random: np.random.Generator, content: bytes) -> bytes:
    """One to three header fields with odd values."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        offset, form = pick(random, _NIFTI)
        if form == "f":
            value = pick(random, FLOATS) if random.random() < 0.7 else float(random.normal(0, 100))
            packed = np.float32(np.clip(value, -3e38, 3e38) if np.isfinite(value) else value).tobytes()
        else:
            bits = {"b": 8, "h": 16, "i": 32}[form]
            packed = (int(pick(random, INTEGERS)) % (1 << bits)).to_bytes(bits // 8, "little")
        data[offset : offset + struct.calcsize(form)] = packed
    return bytes(data)


def damaged_text(random: np.random.Generator, content: bytes, header: int | None = None) -> bytes:
    """Numbers, words and lines of a text (or of the first ``header`` bytes) exchanged."""
    head, body = (content, b"") if header is None else (content[:header], content[header:])
    for _ in range(int(random.integers(1, 4))):
        lines = head.split(b"\n")
        row = int(random.integers(len(lines)))
        numbers = list(_NUMBER.finditer(head))
        way = int(random.integers(6))
        if way <= 1 and numbers:
            found = pick(random, numbers)
            value = pick(random, (*INTEGERS, *FLOATS, *WORDS))
            head = head[: found.start()] + str(value).encode() + head[found.end() :]
            continue
        if way == 2:
            del lines[row]
        elif way == 3:
            lines.insert(row, pick(random, lines))
        elif way == 4:
            words = lines[row].split(b" ")
            words[int(random.integers(len(words)))] = pick(random, WORDS).encode()
            lines[row] = b" ".join(words)
        else:
            lines[row] = damaged_bytes(random, lines[row])
        head = b"\n".join(lines)
    return head + body


def damaged_series(random: np.random.Generator, slices: list[list[Element]]) -> list[list[Element]]:
    """Elements of one slice or of all changed, removed or doubled; slices left out."""
    slices = [list(elements) for elements in slices]
    for _ in range(int(random.integers(1, 4))):
        row = int(random.integers(len(slices[0])))
        touched = slices if random.random() < 0.4 else [pick(random, slices)]
        way = int(random.integers(4))
        value = str(pick(random, (*INTEGERS, *FLOATS, *WORDS))).encode()
        if way == 0:
            value = b"\\".join([value] * int(random.integers(1, 8)))
        for elements in touched:
            place = min(row, len(elements) - 1)
            group, number, form, old = elements[place]
            if way == 2:
                del elements[place]
            elif form == b"US":
                elements[place] = (group, number, form, (pick(random, INTEGERS) % 65536).to_bytes(2, "little"))
            elif form == b"OW":
                elements[place] = (group, number, form, old[: int(random.integers(len(old) + 1))])
            else:
                elements[place] = (group, number, form, old + value if way == 3 else value)
    if random.random() < 0.15:
        del slices[int(random.integers(len(slices)))]
    return [elements for elements in slices if elements]


def odd_value(random: np.random.Generator) -> Any:
    """Anything that JSON may hold where something else is expected."""
    choices = (None, True, [], {}, [[]], {"a": 1}, [None], [1, 2], [1, 2, 3], [1, 2, 3, 4], ["a", "b", "c"], DEEP)
    return pick(random, (*choices, *INTEGERS, *FLOATS, *WORDS))


def damaged_values(random: np.random.Generator, content: Any) -> Any:
    """A copy of nested lists and dictionaries with one to three nodes replaced, removed or doubled."""
    for _ in range(int(random.integers(1, 4))):
        content = _damaged_node(random, content)
    return content


def _damaged_node(random: np.random.Generator, node: Any) -> Any:
    if isinstance(node, (dict, list, tuple)) and len(node) and random.random() < 0.85:
        copy: Any = dict(node) if isinstance(node, dict) else list(node)
        key = pick(random, list(copy) if isinstance(copy, dict) else range(len(copy)))
        way = random.random()
        if way < 0.12:
            del copy[key]
        elif way < 0.2 and isinstance(copy, list):
            copy.append(copy[key])
        elif way < 0.25 and isinstance(copy, dict):
            copy[str(pick(random, WORDS))] = copy.pop(key)
        else:
            copy[key] = _damaged_node(random, copy[key])
        return copy
    if torch.is_tensor(node):
        return _damaged_tensor(random, node)
    return odd_value(random)


def _damaged_tensor(random: np.random.Generator, tensor: torch.Tensor) -> Any:
    way = int(random.integers(7))
    if way == 0:
        return tensor.new_zeros((3,))
    if way == 1:
        return torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor + 5
    if way == 2:
        return tensor.to(pick(random, (torch.int8, torch.complex64, torch.bool, torch.bfloat16, torch.float64)))
    if way == 3:
        return tensor.new_zeros(tensor.shape).to_sparse()
    if way == 4:
        # Announces much and stores nothing.
        return torch.zeros(1).expand(1 << 33)
    if way == 5:
        return tensor[None]
    return odd_value(random)
