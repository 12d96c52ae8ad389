"""Training images of any modality: intensities in [0, 1] at one spacing, with the label map next to them if any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...io.images import read_labels, read_volume
from ...space.grid import Grid
from ...space.intensity import normalized_intensity
from ...space.volume import Volume, check_volume, resample
from ...synthetic.phantom import make_phantom
from .cases import case_name, find_cases, load_each


@dataclass
class Image:
    """One image.

    Attributes:
        modality: "ct" or "mr".
        values: half precision (1, 1, D, H, W) in [0, 1], identity direction.
        labels: uint8 (1, 1, D, H, W) on the same grid, or None.
        group: name of its folder; patients are paired within one.
    """

    name: str
    modality: str
    values: Tensor
    labels: Tensor | None
    grid: Grid
    group: str = ""


def make_image(volume: Volume, labels: Volume | None, name: str, spacing: float) -> Image:
    """An image from a volume in any geometry."""
    check_volume(volume)
    grid = volume.grid.canonical(spacing)
    values = resample(volume.with_tensor(normalized_intensity(volume)), grid).tensor
    found = None if labels is None else resample(labels, grid, mode="nearest").tensor.clamp(0, 255).to(torch.uint8)
    return Image(name, volume.modality, values.half(), found, grid)


def load_images(
    folder: Path,
    *,
    spacing: float,
    include: list[str],
    exclude: list[str],
    progress: Callable[[float, str], None],
) -> list[Image]:
    """Every usable image under a folder; the others are left out with a log line.

    Raises:
        InputError: nothing usable.
    """
    found = find_cases(folder, include, exclude)

    def build(path: Path, label_path: Path | None) -> Image:
        labels = read_labels(label_path) if label_path is not None else None
        return replace(make_image(read_volume(path), labels, case_name(path), spacing), group=path.parent.name)

    images = load_each(found, build, progress)
    if not images:
        raise InputError(f"{folder} holds no usable image.")
    return images


def phantom_images(count: int, spacing: float) -> list[Image]:
    """Invented torsos with their organs, to try a recipe without any patient's image."""
    phantoms = (make_phantom(seed, max(spacing, 6.0)) for seed in range(count))
    return [make_image(p.ct, p.labels, f"phantom{seed:02d}", spacing) for seed, p in enumerate(phantoms)]


def split_images(
    data: Path | None,
    settings: Any,
    progress: Callable[[str, float, str], None],
    *,
    phantoms: int = 5,
    phantoms_held_out: int = 2,
) -> tuple[list[Image], list[Image]]:
    """The images to train on and those held out by name; ``data`` None draws invented torsos.

    Args:
        settings: a recipe's: ``spacing_mm``, what to ``include`` and ``exclude``, names to hold out (``validation``).

    Raises:
        InputError: nothing usable, or nothing left to train on.
    """
    validation = settings.validation
    if data is None:
        images = phantom_images(phantoms, settings.spacing_mm)
        validation = validation or [image.name for image in images[-phantoms_held_out:]]
    else:
        images = load_images(
            data,
            spacing=settings.spacing_mm,
            include=list(settings.include),
            exclude=list(settings.exclude),
            progress=lambda fraction, message: progress("data", fraction, message),
        )
    training = [image for image in images if image.name not in validation]
    if not training:
        raise InputError("every image is held out for validation; nothing is left to train on.")
    return training, [image for image in images if image.name in validation]


def pairs_of(images: list[Image]) -> Callable[[torch.Generator], tuple[int, int]]:
    """Draws two different images of one group by their numbers; every group as often as the others.

    Raises:
        InputError: no group has two images.
    """
    groups = [members for members in _groups(images) if len(members) > 1]
    if not groups:
        raise InputError("training needs at least two images of one folder that are not held out.")

    def draw(generator: torch.Generator) -> tuple[int, int]:
        members = groups[int(torch.randint(len(groups), (1,), generator=generator))]
        first, second = torch.randperm(len(members), generator=generator)[:2].tolist()
        return members[first], members[second]

    return draw


def neighbors(images: list[Image]) -> list[tuple[int, int]]:
    """Every image's number with that of the one before it in its group, around in a circle; none of a group of one."""
    groups = [members for members in _groups(images) if len(members) > 1]
    return [(member, members[k - 1]) for members in groups for k, member in enumerate(members)]


def _groups(images: list[Image]) -> list[list[int]]:
    names = dict.fromkeys(image.group for image in images)
    return [[number for number, image in enumerate(images) if image.group == name] for name in names]


def random_corner(size: Sequence[int], shape: Sequence[int], generator: torch.Generator) -> list[int]:
    """Where a random box of ``shape`` voxels starts in an image of ``size``; negative where the image is smaller."""
    return [
        int(torch.randint(min(0, n - m), max(0, n - m) + 1, (1,), generator=generator))
        for n, m in zip(size, shape, strict=True)
    ]


def cropped(tensor: Tensor, low: list[int], shape: tuple[int, int, int]) -> Tensor:
    """A box of ``shape`` voxels that starts at ``low`` (may lie outside, then filled with 0)."""
    result = torch.zeros(*tensor.shape[:2], *shape, dtype=tensor.dtype)
    source, target = [slice(None)] * 2, [slice(None)] * 2
    for start, size, limit in zip(low, shape, tensor.shape[2:], strict=True):
        first, last = max(start, 0), min(start + size, limit)
        if first >= last:
            return result
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    result[tuple(target)] = tensor[tuple(source)]
    return result
