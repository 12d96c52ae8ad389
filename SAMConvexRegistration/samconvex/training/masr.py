"""Training of MASR-Net: ``samconvex train masr``; needs images of any modality, no labels and no pairs.

Mok et al., CVPR 2024: the same crop in two random contrasts (Bezier curve, inversion). Descriptors of the same place
are to agree, those of other places in the body are to differ: InfoNCE over sampled foreground positions. Beyond the
paper, a case with an aligned CT and MR (``NAME_ct``, ``NAME_mr``) also serves as two views of its places: no curve
turns one into the other. Every image takes part at twice its voxel size too, as coarse levels will see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..networks.masr import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, MASRNet
from ..volume import Volume, resample
from ..weights import load_network
from .contrast import random_contrast
from .images import Image, cropped, random_corner, split_images
from .loop import run_loop


@dataclass
class MasrSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; how often their places are found again in another contrast.
        spacing_mm, shape: voxel size and crop (z, y, x), multiples of 8.
        widths, maps, channels, layouts, learned, smoothed, similarity: see networks/masr.py.
        samples: foreground positions of a step (8196 in the paper).
        temperature: of the contrastive loss.
        foreground: normalized intensity above which a voxel is no air.
        inversion: probability that a contrast is inverted.
        paired: how often a crop's second view is the other modality, where there are aligned images.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    spacing_mm: float = 2.0
    shape: tuple[int, int, int] = (48, 48, 48)
    widths: tuple[int, ...] = (8, 16, 32, 32)
    maps: int = 4
    channels: int = 24
    layouts: tuple[int, ...] = (1, 2)
    learned: bool = True
    smoothed: bool = True
    similarity: bool = True
    samples: int = 2048
    temperature: float = 0.07
    foreground: float = 0.1
    inversion: float = 0.5
    paired: float = 0.5
    learning_rate: float = 1e-4
    threads: int = 2
    seed: int = 0


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, float]:
    """InfoNCE of unit descriptors (N, C) of the same N places, all other places negatives, and the share found."""
    logits = first @ second.T / temperature
    target = torch.arange(len(first))
    found = float((logits.detach().argmax(1) == target).float().mean())
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, found


@dataclass(frozen=True)
class Places:
    """What a draw is made from: an image, and the other modality of the same patient on the same grid if there is one.

    Attributes:
        values, other: half precision (1, 1, D, H, W) in [0, 1].
    """

    values: Tensor
    other: Tensor | None = None


def drawable(images: list[Image]) -> list[Places]:
    """Every image at its own and at twice its voxel size; an aligned pair counts as one, on the smaller's grid."""
    by_name: dict[str, list[Image]] = {}
    for image in images:
        by_name.setdefault(image.name, []).append(image)
    found = []
    for group in by_name.values():
        if {image.modality for image in group} == {"ct", "mr"} and len(group) == 2:
            first, second = sorted(group, key=lambda image: image.grid.voxel_count)
            aligned = resample(Volume(second.values.float(), second.grid), first.grid, fill=0.0).tensor
            found.append(Places(first.values, aligned.half()))
        else:
            found += [Places(image.values) for image in group]
    return found + [Places(_halved(p.values), None if p.other is None else _halved(p.other)) for p in found]


def _halved(values: Tensor) -> Tensor:
    return F.avg_pool3d(values.float(), 2).half()


def draw_crop(
    drawn_from: list[Places], settings: MasrSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """A random crop (1, 1, D, H, W), the other modality's, and flat positions of foreground; None if hardly any is."""
    chosen = drawn_from[int(torch.randint(len(drawn_from), (1,), generator=generator))]
    low = random_corner(chosen.values.shape[2:], settings.shape, generator)
    crop = cropped(chosen.values, low, settings.shape).float()
    other = None if chosen.other is None else cropped(chosen.other, low, settings.shape).float()
    inside = crop[0, 0] > settings.foreground
    if other is not None:
        inside &= other[0, 0] > settings.foreground
    positions = inside.flatten().nonzero()[:, 0]
    if len(positions) < 64:
        return None
    return crop, other, positions[torch.randperm(len(positions), generator=generator)[: settings.samples]]


def crop_loss(
    network: MASRNet, crop: Tensor, places: Tensor, settings: MasrSettings, generator: torch.Generator,
    other: Tensor | None = None,
) -> tuple[Tensor, float]:  # fmt: skip
    """Loss of the places of a crop in two views, and the share of places found again.

    The views are two random contrasts of the crop, or the crop and ``other``, whose contrasts are only bent: what makes
    a CT a CT is to help, not to be hidden.
    """
    inversion = settings.inversion if other is None else 0.0
    views = [random_contrast(view, generator, inversion=inversion) for view in (crop, crop if other is None else other)]
    first, second = (network(view)[0].flatten(1)[:, places].T for view in views)
    return contrastive_loss(first, second, settings.temperature)


def found_again(network: MASRNet, images: list[Image], settings: MasrSettings) -> dict[str, float]:
    """Share of held-out places whose best match among the samples is the very same voxel.

    "found" is in another contrast, "paired" in the other modality, whose alignment is no better than a voxel or two.
    """
    generator = torch.Generator().manual_seed(1)
    shares: dict[str, list[float]] = {}
    network.eval()
    with torch.no_grad():
        for place in drawable(images):
            drawn = draw_crop([place], settings, generator)
            if drawn is None:
                continue
            crop, other, positions = drawn
            shares.setdefault("found", []).append(crop_loss(network, crop, positions, settings, generator)[1])
            if other is not None:
                share = crop_loss(network, crop, positions, settings, generator, other)[1]
                shares.setdefault("paired", []).append(share)
    network.train()
    return {key: round(sum(values) / len(values), 4) for key, values in shares.items()}


def train(
    data: Path | None,
    output: Path,
    *,
    settings: MasrSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on the images of a folder; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files.
    """
    if any(n % 8 for n in settings.shape):
        raise InputError("the crop ('shape') must be a multiple of 8 voxels along every axis.")
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training, held_out = split_images(
        data, spacing=settings.spacing_mm, include=settings.include, exclude=settings.exclude,
        validation=settings.validation, progress=progress,
    )  # fmt: skip
    places = drawable(training)
    network = MASRNet(
        settings.widths, settings.maps, settings.channels, settings.layouts, settings.learned, settings.smoothed,
        settings.similarity,
    )
    if start_from is not None:
        network = load_network(MASRNet, start_from).requires_grad_(True)

    def step(generator: torch.Generator) -> tuple[Tensor, dict[str, float]] | None:
        drawn = draw_crop(places, settings, generator)
        if drawn is None:
            return None
        crop, other, positions = drawn
        if float(torch.rand(1, generator=generator)) >= settings.paired:
            other = None
        loss, found = crop_loss(network, crop, positions, settings, generator, other)
        return loss, {"found": found}

    return run_loop(
        network, step, output, form=CHECKPOINT_FORMAT, version=CHECKPOINT_VERSION, settings=settings,
        learning_rate=settings.learning_rate, minutes=minutes, steps=steps or 20_000, resume=resume,
        validate=lambda: found_again(network, held_out, settings), progress=progress,
    )  # fmt: skip
