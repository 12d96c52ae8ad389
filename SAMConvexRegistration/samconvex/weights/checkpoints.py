"""Checkpoint files: read as tensors alone, within a size limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError, check_at_hand, refusing

Network = TypeVar("Network", bound=nn.Module)

# Weights of 3D networks stay far below this; it keeps a wrong file from filling memory.
LARGEST_FILE = 4 * 2**30


def read_checkpoint(path: Path) -> Any:
    """What a weights file holds.

    Raises:
        InputError: missing, too large, no weights file, or with values that are not finite.
    """
    check_at_hand(path, "of the weights file")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path} is too large for a weights file; check that it is the right one.")
    with refusing(f"{path} could not be read as weights; it is damaged, truncated or not a PyTorch weights file."):
        # weights_only refuses anything but tensors and plain containers; mmap would keep the file busy on Windows.
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not all(_is_plain(value) for _, value in _tensors(content)):
            raise ValueError("tensors that no network has")
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


def _is_plain(value: Tensor) -> bool:
    """False for tensors that are sparse, quantized, without values, or larger than what the file stores of them."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they compute; files hold half precision."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def built(kind: type[Network], content: dict[str, Any]) -> Network:
    """The network of class ``kind`` that a checkpoint's ``config`` describes, with its ``state_dict``.

    Nothing is allocated before the tensors of the file have the shapes that the network needs.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError: damaged.
    """
    config, state = dict(content["config"]), dict(content["state_dict"])
    # Every block has tensors of its own; a count beyond them would build modules for minutes.
    if sum(int(count) for count in config.get("blocks", ())) > len(state):
        raise ValueError("the configuration has more blocks than the file")
    with torch.device("meta"):
        expected = kind(**config).state_dict()
    wrong = [key for key, value in expected.items() if key not in state or state[key].shape != value.shape]
    if wrong or len(state) != len(expected):
        raise ValueError(f"{len(wrong)} tensors are missing or of another shape")
    network = kind(**config)
    network.load_state_dict(as_float(state))
    return network
