"""Whether left and right are exchanged in a CT, by the asymmetry of heart, liver, vessels and stomach.

A small network sees windows along the body (:mod:`samconvex.networks.sides`); their mean says right or mirrored only
beyond a margin that no training patient reached on the wrong side. Heads, necks and limbs look the same on both sides:
there, and where the margin is not reached, it cannot be told. A person with situs inversus looks mirrored.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..networks.sides import SidesNet, prepare
from ..space.intensity import looks_like_ct
from ..space.volume import Volume, resample
from ..weights.models import load_network
from ..weights.registry import DEFAULT_SIDES, known_weights
from .body import body_mask
from .known import KNOWN
from .level import FEET_FIRST, Anatomy

AIR_HU = -1000.0
# Between the middles of windows; the outermost lie this far inside the ends of the body.
STEP_MM, END_MM = 48.0, 60.0
# Mean of the windows from which on it is said; training patients that the network had not seen lie on the right side
# of the lower one, or between the two (Testing/benchmarks/studies/sides.py).
MIRRORED_BELOW, RIGHT_ABOVE = -1.5, 1.0
_UPRIGHT = np.eye(3)
_FEET_FIRST = np.diag([-1.0, 1.0, -1.0])


def with_sides(anatomy: Anatomy, volume: Volume) -> Anatomy:
    """What the image of ``anatomy`` shows, with its sides; only where the rest is clear.

    Raises:
        InputError: the shipped weights are damaged.
    """
    if not anatomy.is_clear:
        return anatomy
    return replace(anatomy, mirrored=is_mirrored(volume, feet_first=anatomy.orientation == FEET_FIRST))


def is_mirrored(volume: Volume, *, feet_first: bool = False) -> bool | None:
    """True where left and right are exchanged, False where not, None where that cannot be told.

    Args:
        volume: any geometry; only CT is judged.
        feet_first: the patient lies so against the header.

    Raises:
        InputError: the shipped weights are damaged.
    """
    score = sides_score(volume, feet_first=feet_first)
    if score is None or MIRRORED_BELOW < score < RIGHT_ABOVE:
        return None
    return score <= MIRRORED_BELOW


def sides_score(volume: Volume, *, feet_first: bool = False) -> float | None:
    """Mean answer of the shipped network, above zero where left is left; None without weights, CT or body.

    Raises:
        InputError: the shipped weights are damaged.
    """
    network = shipped_network()
    if network is None or volume.is_slice or not looks_like_ct(volume):
        return None
    held = KNOWN.sides.setdefault(volume.tensor, {})
    key = (volume.grid, feet_first)
    if key not in held:
        turn = _FEET_FIRST if feet_first else _UPRIGHT
        turned = volume.with_tensor(volume.tensor, volume.grid.turned(turn, volume.grid.center))
        held[key] = _score(network, turned)
    return held[key]


def _score(network: SidesNet, volume: Volume) -> float | None:
    try:
        hu, body = body_at(volume, network.spacing_mm)
    except InputError:
        return None
    return float(answers(network, hu, body).mean())


@torch.no_grad()
def answers(network: SidesNet, hu: Tensor, body: Tensor) -> Tensor:
    """(windows,) answers along a body; ``hu`` and ``body`` as :func:`windows` takes them."""
    device = next(network.parameters()).device
    return network(prepare(windows(hu, body, network.shape, network.spacing_mm)).to(device)).cpu()


def body_at(volume: Volume, spacing_mm: float) -> tuple[Tensor, Tensor]:
    """Hounsfield units (1, 1, D, H, W) with air around the body, and the body (D, H, W), bool.

    Raises:
        InputError: no body.
    """
    grid = volume.grid.canonical(spacing_mm)
    body = resample(body_mask(volume), grid, mode="nearest", fill=0.0).tensor > 0
    near = torch.nn.functional.max_pool3d(body.float(), 3, 1, 1) > 0
    return resample(volume, grid).tensor.float().masked_fill(~near, AIR_HU), body[0, 0]


def windows(hu: Tensor, body: Tensor, shape: tuple[int, ...], spacing_mm: float) -> Tensor:
    """(windows, 1, *shape) of an image (1, 1, D, H, W) along its body (D, H, W), from feet to head."""
    rows = body.flatten(1).any(1).nonzero()[:, 0]
    low, high = float(rows.min()) + END_MM / spacing_mm, float(rows.max()) - END_MM / spacing_mm
    heights = np.arange(low, high + 1e-6, STEP_MM / spacing_mm) if high > low else [(low + high) / 2]
    return torch.cat([_window(hu, middle_of(body, float(z), shape), shape) for z in heights])


def middle_of(body: Tensor, height: float, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Voxel (z, y, x) in the middle of what a window at ``height`` shows of the body."""
    first = max(0, round(height) - shape[0] // 2)
    part = body[first : max(first + 1, round(height) + shape[0] // 2)].any(0)
    if not bool(part.any()):
        part = body.any(0)
    y, x = (part.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return height, float(y.min() + y.max()) / 2, float(x.min() + x.max()) / 2


def _window(hu: Tensor, middle: tuple[float, float, float], shape: tuple[int, ...]) -> Tensor:
    """(1, 1, *shape) about a voxel, air beyond the image."""
    window = torch.full((1, 1, *shape), AIR_HU)
    target, source = [slice(None)] * 2, [slice(None)] * 2
    for center, length, size in zip(middle, shape, hu.shape[2:], strict=True):
        start = round(center - (length - 1) / 2)
        first, last = max(start, 0), min(start + length, size)
        if first >= last:
            return window
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    window[tuple(target)] = hu[tuple(source)].float()
    return window


def shipped_network() -> SidesNet | None:
    """The shipped network, read once; None where its file is missing.

    Raises:
        InputError: the file is damaged or altered.
    """
    entry = next((e for e in known_weights() if e.name == DEFAULT_SIDES), None)
    if entry is None or not entry.path.is_file():
        return None
    return _loaded(str(entry.path), entry.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(_path: str, _modified: int) -> SidesNet:
    return load_network(SidesNet)
