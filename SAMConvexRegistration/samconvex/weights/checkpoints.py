"""Checkpoint files: read as tensors alone, within a size limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

# Weights of 3D networks stay far below this; it keeps a wrong file from filling memory.
LARGEST_FILE = 4 * 2**30


def read_checkpoint(path: Path) -> Any:
    """What a weights file holds.

    Raises:
        InputError: missing, too large, no weights file, or with values that are not finite.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path of the weights file.")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} is too large for a weights file; check that it is the right one.")
    try:
        # weights_only refuses anything but tensors and plain containers; mmap would keep the file busy on Windows.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} could not be read as weights; it is damaged, truncated or not a PyTorch weights file."
        ) from error
    broken = not_finite(content)
    if broken is not None:
        raise InputError(f"{path} holds values that are not finite ({broken}); use an earlier file, or train again.")
    return content


def not_finite(content: Any) -> str | None:
    """Name of the first tensor in nested containers with a NaN or an infinite value; None if all are finite."""
    return next((name for name, value in _tensors(content) if not bool(torch.isfinite(value).all())), None)


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
        return
    pairs = content.items() if isinstance(content, dict) else ()
    for key, value in enumerate(content) if isinstance(content, (list, tuple)) else pairs:
        yield from _tensors(value, f"{name}.{key}" if name else str(key))


def as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they compute; files hold half precision."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
