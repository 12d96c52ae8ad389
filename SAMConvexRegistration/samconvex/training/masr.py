"""Training of MASR-Net: ``samconvex train masr``; needs images of any modality, no labels and no pairs.

Mok et al., CVPR 2024: the same crop in two random contrasts (Bezier curve, inversion). Descriptors of the same place
are to agree, those of other places in the body are to differ: InfoNCE over sampled foreground positions. Beyond the
paper, a case with an aligned CT and MR (``NAME_ct``, ``NAME_mr``) also serves as two views of its places: no curve
turns one into the other. Every image takes part at twice its voxel size too, as coarse levels will see it. The two
views are cut at different places: from views cut alike a network learns where a voxel lies in its crop, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import chosen_device
from ..errors import InputError
from ..networks.masr import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, MASRNet
from ..space.volume import Volume, resample
from ..weights.models import load_network
from .data.contrast import random_contrast
from .data.images import Image, cropped, random_corner, split_images
from .loop import Drawn, Loop, Plan, half_precise, writer


@dataclass
class MasrSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; how often their places are found again in another contrast.
        spacing_mm, shape: voxel size and crop (z, y, x), multiples of 8.
        shift: by how many voxels the two views may be cut apart along an axis.
        widths, maps, channels, layouts, learned, smoothed, similarity: see networks/masr.py.
        samples: foreground positions of a step (8196 in the paper).
        temperature: of the contrastive loss.
        foreground: normalized intensity above which a voxel is no air.
        inversion: probability that a contrast is inverted.
        paired: how often a crop's second view is the other modality, where there are aligned images.
        near: in a pair of modalities places at most this many voxels apart are not told from each other: their
            alignment is no better.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    spacing_mm: float = 2.0
    shape: tuple[int, int, int] = (48, 48, 48)
    shift: int = 16
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
    near: int = 2
    learning_rate: float = 1e-4
    threads: int = 2
    seed: int = 0


def contrastive_loss(
    first: Tensor, second: Tensor, temperature: float, ignored: Tensor | None = None
) -> tuple[Tensor, float]:
    """InfoNCE of unit descriptors (N, C) of the same N places, and the share found.

    All other places are negatives but for those ``ignored``, (N, N) bool.
    """
    logits = first @ second.T / temperature
    if ignored is not None:
        logits = logits.masked_fill(ignored.to(logits.device), -torch.inf)
    target = torch.arange(len(first), device=logits.device)
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


@dataclass(frozen=True)
class Draw:
    """Two views of a place, cut apart.

    Attributes:
        first, second: (1, 1, D, H, W); in the same modality unless ``paired``.
        positions: flat positions (2, N) of the same places of foreground in both.
        paired: the second view is the other modality's.
    """

    first: Tensor
    second: Tensor
    positions: Tensor
    paired: bool = False


def draw_views(
    drawn_from: list[Places], settings: MasrSettings, generator: torch.Generator, *, paired: bool
) -> Draw | None:
    """Two random crops of an image that share most of their places; None if hardly any is foreground."""
    chosen = drawn_from[int(torch.randint(len(drawn_from), (1,), generator=generator))]
    paired = paired and chosen.other is not None
    shape = torch.tensor(settings.shape)
    low = torch.tensor(random_corner(chosen.values.shape[2:], settings.shape, generator))
    apart = torch.randint(-settings.shift, settings.shift + 1, (3,), generator=generator)
    first = cropped(chosen.values, low.tolist(), settings.shape).float()
    other = chosen.values if not paired or chosen.other is None else chosen.other
    second = cropped(other, (low + apart).tolist(), settings.shape).float()
    # Places as (N, 3) voxels of the first view, that the second one has too.
    places = (first[0, 0] > settings.foreground).nonzero()
    moved = places - apart
    common = ((moved >= 0) & (moved < shape)).all(1)
    places, moved = places[common], moved[common]
    seen = second[0, 0][tuple(moved.T)] > settings.foreground
    strides = torch.tensor([settings.shape[1] * settings.shape[2], settings.shape[2], 1])
    positions = torch.stack([(places[seen] * strides).sum(1), (moved[seen] * strides).sum(1)])
    if positions.shape[1] < 64:
        return None
    chosen_places = torch.randperm(positions.shape[1], generator=generator)[: settings.samples]
    return Draw(first, second, positions[:, chosen_places], paired)


def views_loss(
    network: MASRNet, drawn: Draw, settings: MasrSettings, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Loss of the places in two views, each in a random contrast, and the share of places found again.

    The contrasts of two modalities are only bent: what makes a CT a CT is to help, not to be hidden.
    """
    inversion = 0.0 if drawn.paired else settings.inversion
    device = next(network.parameters()).device
    descriptors = []
    for view, places in zip((drawn.first, drawn.second), drawn.positions, strict=True):
        image = random_contrast(view, generator, inversion=inversion).to(device)
        maps = network.maps(image)
        with half_precise(device):
            described = network.describe(maps)
        descriptors.append(described[0].flatten(1)[:, places.to(device)].T)
    ignored = neighbors(drawn.positions[0], settings.shape, settings.near) if drawn.paired else None
    return contrastive_loss(descriptors[0], descriptors[1], settings.temperature, ignored)


def neighbors(positions: Tensor, shape: tuple[int, int, int], near: int) -> Tensor:
    """(N, N) bool: which of N flat positions in a crop of ``shape`` are others at most ``near`` voxels away."""
    places = torch.stack(torch.unravel_index(positions, shape), 1)
    close = (places[:, None] - places[None]).abs().amax(2) <= near
    return close & ~torch.eye(len(places), dtype=torch.bool)


def found_again(network: MASRNet, images: list[Image], settings: MasrSettings) -> dict[str, float]:
    """Share of held-out places whose best match among the samples is the very same voxel.

    "found" is in another contrast, "paired" in the other modality, whose alignment is no better than a voxel or two.
    """
    generator = torch.Generator().manual_seed(1)
    shares: dict[str, list[float]] = {}
    network.eval()
    with torch.no_grad():
        for place in drawable(images):
            for paired in (False, True):
                drawn = draw_views([place], settings, generator, paired=paired)
                if drawn is not None and drawn.paired == paired:
                    share = views_loss(network, drawn, settings, generator)[1]
                    shares.setdefault("paired" if paired else "found", []).append(share)
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
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on the images of a folder; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files. ResourceError: no such device.
    """
    if any(n % 8 for n in settings.shape):
        raise InputError("the crop ('shape') must be a multiple of 8 voxels along every axis.")
    where = chosen_device(device)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training, held_out = split_images(data, settings, progress)
    places = drawable(training)
    network = _network(settings) if start_from is None else load_network(MASRNet, start_from).requires_grad_(True)
    network.to(where)

    def draw(generator: torch.Generator) -> Drawn:
        paired = float(torch.rand(1, generator=generator)) < settings.paired
        drawn = draw_views(places, settings, generator, paired=paired)
        if drawn is None:
            return None
        loss, found = views_loss(network, drawn, settings, generator)
        return loss, {"found": found}

    plan = Plan(
        settings,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        lambda step, share: settings.learning_rate * (0.5 + 0.5 * math.cos(math.pi * share)),
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda _network: found_again(network, held_out, settings),
        minutes,
        steps or 20_000,
    )
    return Loop(network, output, plan, resume=resume).run(draw, progress)


def _network(settings: MasrSettings) -> MASRNet:
    return MASRNet(
        settings.widths,
        settings.maps,
        settings.channels,
        settings.layouts,
        settings.learned,
        settings.smoothed,
        settings.similarity,
    )
