"""Training of SAM-VoxelMorph: ``samconvex train same``; needs CTs, no labels and no pairs.

SAME (Liu et al., 2021): the loss of VoxelMorph (local correlation, smoothness of the field) and how unlike the
embeddings are that the field brings together. Images are embedded once, in the box that the network sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..device import chosen_device
from ..errors import InputError
from ..features.sam import SamAnew
from ..networks.lapirn import integrated, warped
from ..networks.sam_voxelmorph import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, SAMVoxelMorph
from ..space.grid import Grid
from ..space.volume import Volume
from ..weights.models import load_network, load_sam
from .data.images import Image, neighbors, pairs_of, split_images
from .data.overlap import mean_dice
from .lapirn import boxed, local_correlation, roughness
from .loop import Drawn, Loop, Plan, half_precise, writer


@dataclass
class SameSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; registered to the next one in turn before and after training.
        spacing_mm, shape, aligned: voxel size and box (z, y, x), multiples of 16, see
            :class:`samconvex.training.lapirn.LapirnSettings`.
        width: factor on the network's channels.
        embedding: weights of the embedding network; the shipped ones if empty.
        window: of the local correlation, voxels.
        smoothness: weight of the field's roughness, see :func:`samconvex.training.lapirn.roughness`.
        similarity: weight of one minus the cosine of the embeddings.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    spacing_mm: float = 4.0
    shape: tuple[int, int, int] = (64, 64, 96)
    aligned: bool = False
    width: float = 1.0
    embedding: str = ""
    window: int = 9
    smoothness: float = 1.0
    similarity: float = 1.0
    learning_rate: float = 1e-4
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """An image in the network's box: values, labels (or None) and unit vectors at half resolution."""

    values: Tensor
    labels: Tensor | None
    maps: Tensor

    def to(self, device: torch.device) -> Seen:
        labels = None if self.labels is None else self.labels.to(device)
        return Seen(self.values.to(device), labels, self.maps.to(device))


def seen(image: Image, extractor: SamAnew, settings: SameSettings) -> Seen:
    """What the network sees of an image.

    Raises:
        InputError: no CT.
    """
    if image.modality != "ct":
        raise InputError(f"{image.name} is no CT in Hounsfield units; leave it out with 'exclude'.")
    values, labels = boxed(image, settings.shape, settings.aligned)
    depth, height, width = settings.shape
    volume = Volume(values, Grid((width, height, depth), (settings.spacing_mm,) * 3))
    return Seen(values, labels, extractor.pooled(volume, 2).tensor.half())


def pair_loss(network: SAMVoxelMorph, fixed: Seen, moving: Seen, settings: SameSettings) -> tuple[Tensor, Tensor]:
    """The loss, and the normalized displacement that it judges."""
    maps = moving.maps.float(), fixed.maps.float()
    with half_precise(fixed.values.device):
        velocity = network.velocity(moving.values, fixed.values, *maps)
    u = integrated(velocity)
    unlike = -local_correlation(warped(moving.values, u), fixed.values, settings.window)
    half = torch.nn.functional.avg_pool3d(u, 2)
    apart = 1 - torch.nn.functional.cosine_similarity(warped(maps[0], half), maps[1], dim=1).mean()
    return unlike + settings.similarity * apart + settings.smoothness * roughness(u), u


def held_out_figures(
    network: SAMVoxelMorph, images: list[Seen], pairs: list[tuple[int, int]], settings: SameSettings
) -> dict[str, Any]:
    """Loss and Dice of each image registered to the next; "start" is before any registration."""
    found: dict[str, list[float]] = {}
    network.eval()
    with torch.no_grad():
        for pair in pairs:
            fixed, moving = (images[k] for k in pair)
            loss, u = pair_loss(network, fixed, moving, settings)
            found.setdefault("loss", []).append(float(loss))
            if fixed.labels is not None and moving.labels is not None:
                pulled = mean_dice(moving.labels, fixed.labels, lambda mask, u=u: warped(mask, u))  # type: ignore[misc]
                found.setdefault("dice_start", []).append(mean_dice(moving.labels, fixed.labels, lambda mask: mask))
                found.setdefault("dice", []).append(pulled)
    network.train()
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def train(
    data: Path | None,
    output: Path,
    *,
    settings: SameSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on pairs of the CTs of a folder, of one subfolder each; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files. ResourceError: no such device.
    """
    if any(n % SAMVoxelMorph.multiple for n in settings.shape):
        raise InputError(f"the box ('shape') must be a multiple of {SAMVoxelMorph.multiple} voxels along every axis.")
    where = chosen_device(device)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    extractor = SamAnew(load_sam(settings.embedding or None), "fine", where)
    training, held_out = split_images(data, settings, progress)
    draw_pair = pairs_of(training)
    known, watched = ([seen(i, extractor, settings).to(where) for i in images] for images in (training, held_out))
    network = SAMVoxelMorph(settings.spacing_mm, settings.width, settings.shape)
    if start_from is not None:
        network = load_network(SAMVoxelMorph, start_from).requires_grad_(True)
    network.to(where)

    def draw(generator: torch.Generator) -> Drawn:
        fixed, moving = (known[k] for k in draw_pair(generator))
        loss, _ = pair_loss(network, fixed, moving, settings)
        return loss, {}

    plan = Plan(
        settings,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        lambda step, share: settings.learning_rate,
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda _network: held_out_figures(network, watched, neighbors(held_out), settings),
        minutes,
        steps or 30_000,
    )
    return Loop(network, output, plan, resume=resume).run(draw, progress)
