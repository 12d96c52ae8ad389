"""Training of LapIRN: ``samconvex train lapirn``; pairs are any two images, no labels are needed.

Mok & Chung, MICCAI 2020: the levels are trained one after the other, coarse to fine; when a level begins, those before
it stand still for a while. The loss is what the images, brought together, still differ by, and the roughness of the
field. Beside the paper's local correlation, images can be compared by MIND or, across modalities, by MASR-Net's DNS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import chosen_device
from ..errors import InputError
from ..features.mind import mind_ssc
from ..networks.lapirn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, LapIRN, LevelField, warped
from ..networks.masr import MASRNet
from ..weights.models import load_network
from .data.contrast import random_contrast
from .data.images import Image, cropped, neighbors, pairs_of, split_images
from .data.overlap import mean_dice
from .loop import Drawn, Loop, Plan, half_precise, writer

LOSSES = ("ncc", "mind", "dns")
# Shares of the run at which the levels are done: 30, 30 and 60 of 120 thousand steps.
LEVEL_ENDS = (0.25, 0.5, 1.0)
# Share of the run in which earlier levels stand still when a level begins: 2 of 120 thousand steps.
STANDING = 1 / 60
# Windows of the local correlation at each level, voxels; every further one sees half the resolution and counts half.
WINDOWS = ((3,), (5, 3), (7, 5, 3))
_EPSILON = 1e-5
_FOREGROUND = 0.1


@dataclass
class LapirnSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; registered to the next one in turn before and after training.
        spacing_mm, shape: voxel size and box (z, y, x), multiples of 8, around the middle of what is no air.
        aligned: the images of a folder lie in one frame already (``Testing/benchmarks/studies/aligned_images.py``): the
            box lies around the middle of the images themselves.
        diffeomorphic, start_channels: see networks/lapirn.py.
        loss: "ncc" (local correlation), "mind" or "dns".
        smoothness: weight of the mean squared difference of neighboring displacements, which the authors count in half
            voxels.
        contrast: how often the second image gets a random contrast; for "mind" and "dns".
        descriptor: weights of MASR-Net for "dns"; the shipped ones if empty.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    spacing_mm: float = 3.0
    shape: tuple[int, int, int] = (64, 64, 64)
    aligned: bool = False
    diffeomorphic: bool = False
    start_channels: int = 7
    loss: str = "ncc"
    smoothness: float = 1.0
    contrast: float = 0.0
    descriptor: str = ""
    learning_rate: float = 1e-4
    threads: int = 2
    seed: int = 0


def local_correlation(first: Tensor, second: Tensor, window: int) -> Tensor:
    """Mean squared correlation coefficient of (1, 1, D, H, W) images in boxes of ``window``^3 voxels; 1 is alike."""

    def total(values: Tensor) -> Tensor:
        # Axis by axis: torch's pooling visits every voxel of its window, 12 times the work in windows of 9^3.
        for axis in range(3):
            size = [window if number == axis else 1 for number in range(3)]
            values = F.avg_pool3d(values, size, 1, [n // 2 for n in size])
        return values * window**3

    count = window**3
    sum_1, sum_2 = total(first), total(second)
    cross = total(first * second) - sum_1 * sum_2 / count
    variances = (total(first.square()) - sum_1.square() / count, total(second.square()) - sum_2.square() / count)
    return (cross.square() / (variances[0] * variances[1] + _EPSILON)).mean()


def correlation_loss(first: Tensor, second: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Minus the local correlations over ever coarser images, each counting half the one before."""
    loss = first.new_zeros(())
    for number, window in enumerate(windows):
        loss = loss - local_correlation(first, second, window) / 2**number
        if number + 1 < len(windows):
            first, second = (F.avg_pool3d(v, 3, 2, 1, count_include_pad=False) for v in (first, second))
    return loss


def roughness(displacement: Tensor) -> Tensor:
    """Mean squared difference of neighbors (half voxels), of a normalized displacement (1, 3, D, H, W)."""
    size = displacement.new_tensor(displacement.shape[:1:-1])
    halves = displacement * (size - 1).view(1, 3, 1, 1, 1)
    return torch.stack([halves.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()


class Comparison:
    """The recipe's loss: of images, or of descriptors made once and read where points come to lie."""

    def __init__(self, settings: LapirnSettings, device: torch.device) -> None:
        if settings.loss not in LOSSES:
            raise InputError(f"There is no loss {settings.loss!r}; choose one of: {', '.join(LOSSES)}.")
        self.settings = settings
        known = load_network(MASRNet, settings.descriptor or None) if settings.loss == "dns" else None
        self._masr = known if known is None else known.to(device)

    @torch.no_grad()
    def described(self, image: Tensor) -> Tensor:
        """What is compared of an image (1, 1, D, H, W) in [0, 1]: (1, C, D, H, W)."""
        if self.settings.loss == "ncc":
            return image
        return mind_ssc(image) if self._masr is None else self._masr(image)

    def __call__(self, fixed: Tensor, moving: Tensor, field: LevelField, level: int) -> tuple[Tensor, float]:
        """The loss of a level's field, and how unlike the described images are."""
        target = fixed
        for _ in range(2 - level):
            target = F.avg_pool3d(target, 3, 2, 1, count_include_pad=False)
        pulled = warped(moving, field.displacement)
        if self.settings.loss == "ncc":
            unlike = correlation_loss(pulled, target, WINDOWS[level])
        else:
            unlike = (pulled - target).square().sum(1).mean()
        return unlike + self.settings.smoothness * roughness(field.displacement), float(unlike.detach())


def boxed(image: Image, shape: tuple[int, int, int], aligned: bool = False) -> tuple[Tensor, Tensor | None]:
    """Values and labels in a box around the middle of what is no air, or of an ``aligned`` image; float32 and int64."""
    places = (image.values[0, 0] > _FOREGROUND).nonzero()
    size = torch.tensor(image.values.shape[2:])
    middle = (places.amin(0) + places.amax(0) + 1) / 2 if len(places) and not aligned else size / 2
    low = (middle - torch.tensor(shape) / 2).round().int().tolist()
    labels = None if image.labels is None else cropped(image.labels, low, shape).long()
    return cropped(image.values, low, shape).float(), labels


def fields(network: LapIRN, moving: Tensor, fixed: Tensor, levels: int = 3) -> list[LevelField]:
    """:meth:`LapIRN.fields`, convolved in bfloat16 where the processor has it: a step takes a fifth of the time."""
    with half_precise(fixed.device):
        return network.fields(moving, fixed, levels)


def level_at(share: float) -> tuple[int, bool]:
    """Which level is trained when this share of the run is done, and whether those before it stand still."""
    level = next((number for number, end in enumerate(LEVEL_ENDS) if share < end), len(LEVEL_ENDS) - 1)
    began = LEVEL_ENDS[level - 1] if level else 0.0
    return level, level > 0 and share < began + STANDING


def held_out_figures(
    network: LapIRN, images: list[Image], compare: Comparison, settings: LapirnSettings
) -> dict[str, Any]:
    """Loss and Dice of each image registered to the next; "start" is before any registration."""
    found: dict[str, list[float]] = {}
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        for pair in neighbors(images):
            parts = [part for k in pair for part in boxed(images[k], settings.shape, settings.aligned)]
            fixed, target, moving, labels = (None if part is None else part.to(device) for part in parts)
            assert fixed is not None and moving is not None
            field = fields(network, moving, fixed)[-1]
            loss, _ = compare(compare.described(fixed), compare.described(moving), field, 2)
            found.setdefault("loss", []).append(float(loss))
            if target is not None and labels is not None:
                displacement = field.displacement
                found.setdefault("dice_start", []).append(mean_dice(labels, target, lambda mask: mask))
                found.setdefault("dice", []).append(
                    mean_dice(labels, target, lambda mask, u=displacement: warped(mask, u))  # type: ignore[misc]
                )
    network.train()
    return {key: round(sum(values) / len(values), 4) for key, values in found.items()}


def train(
    data: Path | None,
    output: Path,
    *,
    settings: LapirnSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on pairs of the images of a folder, of one subfolder each; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files. ResourceError: no such device.
    """
    if any(n % LapIRN.multiple for n in settings.shape):
        raise InputError(f"the box ('shape') must be a multiple of {LapIRN.multiple} voxels along every axis.")
    where = chosen_device(device)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    compare = Comparison(settings, where)
    training, held_out = split_images(data, settings, progress)
    draw_pair = pairs_of(training)
    network = LapIRN(
        settings.diffeomorphic, settings.start_channels, spacing_mm=settings.spacing_mm, shape=settings.shape
    )
    if start_from is not None:
        network = load_network(LapIRN, start_from).requires_grad_(True)
    network.to(where)
    plan = Plan(
        settings,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        lambda step, share: settings.learning_rate,
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda _network: held_out_figures(network, held_out, compare, settings),
        minutes,
        steps or 120_000,
    )
    loop = Loop(network, output, plan, resume=resume)

    def draw(generator: torch.Generator) -> Drawn:
        level, standing = level_at(loop.share)
        for number, part in enumerate(network.levels):
            part.requires_grad_(number == level or (number < level and not standing))
        pair = draw_pair(generator)
        fixed, moving = (boxed(training[k], settings.shape, settings.aligned)[0].to(where) for k in pair)
        if float(torch.rand(1, generator=generator)) < settings.contrast:
            moving = random_contrast(moving.cpu(), generator).to(where)
        field = fields(network, moving, fixed, level + 1)[-1]
        loss, unlike = compare(compare.described(fixed), compare.described(moving), field, level)
        return loss, {"unlike": unlike, "level": float(level + 1)}

    return loop.run(draw, progress)
