"""Training of MASR-Net: ``samconvex train masr``; needs images of any modality, no labels and no pairs.

Mok et al., CVPR 2024: the same crop in two random contrasts (Bezier curve, inversion). Descriptors of the same place
are to agree, those of other places in the body are to differ: InfoNCE over sampled foreground positions.
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
from .contrast import random_contrast
from .images import Image, cropped, load_images, phantom_images
from .loop import run_loop


@dataclass
class MasrSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; how often their places are found again in another contrast.
        spacing_mm, shape: voxel size and crop (z, y, x), multiples of 8.
        widths, maps, channels, layouts, learned, smoothed: see networks/masr.py.
        samples: foreground positions of a step (8196 in the paper).
        temperature: of the contrastive loss.
        foreground: normalized intensity above which a voxel is no air.
        inversion: probability that a contrast is inverted.
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
    samples: int = 2048
    temperature: float = 0.07
    foreground: float = 0.1
    inversion: float = 0.5
    learning_rate: float = 1e-4
    threads: int = 2
    seed: int = 0


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, float]:
    """InfoNCE of unit descriptors (N, C) of the same N places, all other places negatives, and the share found."""
    logits = first @ second.T / temperature
    target = torch.arange(len(first))
    found = float((logits.detach().argmax(1) == target).float().mean())
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, found


def draw_crop(
    images: list[Image], settings: MasrSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """A random crop (1, 1, D, H, W) and flat positions of its foreground; None where there is hardly any."""
    image = images[int(torch.randint(len(images), (1,), generator=generator))]
    low = [
        int(torch.randint(min(0, n - m), max(0, n - m) + 1, (1,), generator=generator))
        for n, m in zip(image.values.shape[2:], settings.shape, strict=True)
    ]
    crop = cropped(image.values, low, settings.shape).float()
    inside = (crop[0, 0] > settings.foreground).flatten().nonzero()[:, 0]
    if len(inside) < 64:
        return None
    return crop, inside[torch.randperm(len(inside), generator=generator)[: settings.samples]]


def crop_loss(
    network: MASRNet, crop: Tensor, places: Tensor, settings: MasrSettings, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Loss of one crop seen in two random contrasts, and the share of places found again."""
    views = [random_contrast(crop, generator, inversion=settings.inversion) for _ in range(2)]
    first, second = (network(view)[0].flatten(1)[:, places].T for view in views)
    return contrastive_loss(first, second, settings.temperature)


def found_again(network: MASRNet, images: list[Image], settings: MasrSettings) -> dict[str, float]:
    """Mean share of held-out places whose best match in another contrast is the very same voxel."""
    generator = torch.Generator().manual_seed(1)
    shares = []
    network.eval()
    with torch.no_grad():
        for _ in range(8 if images else 0):
            drawn = draw_crop(images, settings, generator)
            if drawn is not None:
                shares.append(crop_loss(network, *drawn, settings, generator)[1])
    network.train()
    return {"found": round(sum(shares) / len(shares), 4)} if shares else {}


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
    if data is None:
        images = phantom_images(4, settings.spacing_mm)
        validation: tuple[str, ...] = settings.validation or (images[-1].name,)
    else:
        images = load_images(
            data, spacing=settings.spacing_mm, include=list(settings.include), exclude=list(settings.exclude),
            progress=lambda fraction, message: progress("data", fraction, message),
        )  # fmt: skip
        validation = settings.validation
    training = [image for image in images if image.name not in validation]
    held_out = [image for image in images if image.name in validation]
    if not training:
        raise InputError("every image is held out for validation; nothing is left to train on.")
    network = MASRNet(
        settings.widths, settings.maps, settings.channels, settings.layouts, settings.learned, settings.smoothed
    )
    if start_from is not None:
        from ..features.dns import load_masr

        network = load_masr(start_from).requires_grad_(True)

    def step(generator: torch.Generator) -> tuple[Tensor, dict[str, float]] | None:
        drawn = draw_crop(training, settings, generator)
        if drawn is None:
            return None
        loss, found = crop_loss(network, *drawn, settings, generator)
        return loss, {"found": found}

    return run_loop(
        network, step, output, form=CHECKPOINT_FORMAT, version=CHECKPOINT_VERSION, settings=settings,
        learning_rate=settings.learning_rate, minutes=minutes, steps=steps or 20_000, resume=resume,
        validate=lambda: found_again(network, held_out, settings), progress=progress,
    )  # fmt: skip
