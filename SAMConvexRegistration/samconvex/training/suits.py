"""Training of FeatCNN: as a replicator of MIND (``train featcnn``), then end to end on labels (``train suits``).

SUITS (Blendowski et al., Medical Image Analysis 2020): features are good if the Gauss-Newton descent on them carries
one patient to another, labels and all. Of 15 descent steps one is differentiated: k_back steps run without gradients,
then one whose linear system passes the label loss back to both images' features. The published steps before it run on
the label maps, and every step warps the image and describes it anew (``label_driven``, configs/suits_published.json);
by default they run on the features themselves, made once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deform.diffusion import Linearization, descend_anew, increment, quadratic_spline
from ..device import cpu_has_bfloat16
from ..errors import InputError
from ..features.mind import mind_ssc
from ..networks.featcnn import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, FeatCNN
from ..settings.registration import DiffusionSettings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.sampling import interpolate
from ..space.volume import FeatureMap
from ..weights.models import load_network
from .data.contrast import random_contrast
from .data.images import Image, cropped, random_corner, split_images
from .data.overlap import mean_dice
from .loop import Drawn, Loop, Plan, writer

# A crop with a smaller standard deviation shows nothing to describe.
_FLAT = 0.01
# Keeps the logarithm of a warped label finite.
_FLOOR = 1e-4


@dataclass
class SuitsSettings:
    """Both recipes.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; registered to the next one in turn before and after training.
        spacing_mm, shape: voxel size and box (z, y, x), multiples of 4: end to end images are brought to it, center on
            center; the replicator sees a random part of that size.
        reductions: stride 2 (1) or 4 (2), see networks/featcnn.py.
        contrast: how often the second image gets a random contrast and takes the other modality's branch.
        batch, learning_rate, pretraining_rate: pairs of a step; Adam's rates end to end and for the replicator.
        label_driven: the training's k_back steps run on the label maps, and the held-out descents make the features
            of the warped image anew at every step.
        iterations, regularization, test_regularization, step: of the descent; k_back is drawn from 0 to iterations.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    spacing_mm: float = 1.0
    shape: tuple[int, int, int] = (48, 64, 48)
    reductions: int = 1
    contrast: float = 0.5
    batch: int = 3
    learning_rate: float = 1e-5
    pretraining_rate: float = 1e-3
    iterations: int = 15
    regularization: float = 5.0
    test_regularization: float = 10.0
    step: float = 1.0
    label_driven: bool = False
    threads: int = 2
    seed: int = 0


def centered(image: Image, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
    """Values and labels in a box around the image's middle, float32 and int64."""
    low = [(n - m) // 2 for n, m in zip(image.values.shape[2:], shape, strict=True)]
    labels = None if image.labels is None else cropped(image.labels, low, shape).long()
    return cropped(image.values, low, shape).float(), labels


def described(network: FeatCNN, values: Tensor, branch: str) -> Tensor:
    """Features, convolved in bfloat16 where the processor has it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
        return network(values, branch).float()


def replicator_loss(network: FeatCNN, values: Tensor, branch: str) -> Tensor:
    """Mean absolute difference to MIND-SSC, averaged to the network's stride."""
    target = F.avg_pool3d(mind_ssc(values), network.stride)
    return (described(network, values, branch) - target).abs().mean()


def warped(values: Tensor, u: Tensor, grid: Grid) -> Tensor:
    """(1, C, D, H, W) on ``grid`` pulled through the displacement (1, 3, D, H, W) mm."""
    points = grid.voxel_centers(reference=grid.center) + u[0].permute(1, 2, 3, 0)
    return interpolate(values, grid.normalized(points, grid.center))


def descent(
    first: Tensor, second: Tensor, grid: Grid, settings: SuitsSettings, steps: int, regularization: float
) -> Tensor:
    """The field after ``steps`` Gauss-Newton steps from zero, without gradients."""
    with torch.no_grad():
        pair = Linearization(first, FeatureMap(second, grid), torch.ones_like(first[:, :1]), grid)
        u = torch.zeros(1, 3, *grid.shape)
        for _ in range(steps):
            u = u + settings.step * increment(pair, u, regularization)
        return u


def pair_loss(
    network: FeatCNN,
    fixed: tuple[Tensor, Tensor, str],
    moving: tuple[Tensor, Tensor, str],
    k_back: int,
    settings: SuitsSettings,
) -> Tensor:
    """Cross-entropy between warped and fixed labels after ``k_back`` steps and a differentiated one.

    Args:
        fixed, moving: values (1, 1, D, H, W), labels (1, 1, D, H, W) and branch.
    """
    image_grid = _grid(settings)
    control = image_grid.strided(network.stride)
    first = described(network, fixed[0], fixed[2])
    if settings.label_driven:
        u = label_descent(fixed[1], moving[1], control, image_grid, settings, k_back)
        pulled = warped(moving[0], quadratic_spline(u, settings.shape), image_grid)
        second = described(network, pulled, moving[2])
    else:
        second = described(network, moving[0], moving[2])
        u = descent(first.detach(), second.detach(), control, settings, k_back, settings.regularization)
    pair = Linearization(first, FeatureMap(second, control), torch.ones_like(first[:, :1]), control)
    u = u + settings.step * increment(pair, u, settings.regularization, warped=settings.label_driven)
    one_hot = _one_hot(moving[1], _classes(fixed[1], moving[1]))
    probability = warped(one_hot, quadratic_spline(u, settings.shape), image_grid).clamp(min=_FLOOR)
    return F.nll_loss(probability.log(), fixed[1][0])


def label_descent(
    fixed: Tensor, moving: Tensor, control: Grid, image_grid: Grid, settings: SuitsSettings, steps: int
) -> Tensor:
    """The field on ``control`` after ``steps`` Gauss-Newton steps from zero that compare label maps alone."""
    classes = _classes(fixed, moving)
    stride = round(control.spacing[0] / image_grid.spacing[0])
    target, maps = _one_hot(fixed, classes), _one_hot(moving, classes)

    def moved(u: Tensor) -> Tensor:
        return F.avg_pool3d(warped(maps, quadratic_spline(u, settings.shape), image_grid), stride)

    return _anew(F.avg_pool3d(target, stride), moved, control, settings, steps, settings.regularization)


def image_descent(
    network: FeatCNN,
    fixed: tuple[Tensor, str],
    moving: tuple[Tensor, str],
    control: Grid,
    image_grid: Grid,
    settings: SuitsSettings,
) -> Tensor:
    """The field on ``control`` after the descent of testing, which describes the warped image anew at every step."""

    def moved(u: Tensor) -> Tensor:
        pulled = warped(moving[0], quadratic_spline(u, settings.shape), image_grid)
        return described(network, pulled, moving[1])

    first = described(network, *fixed)
    return _anew(first, moved, control, settings, settings.iterations, settings.test_regularization)


@torch.no_grad()
def _anew(
    fixed: Tensor,
    moved: Callable[[Tensor], Tensor],
    control: Grid,
    settings: SuitsSettings,
    steps: int,
    regularization: float,
) -> Tensor:
    found = descend_anew(
        DisplacementField.zeros(control),
        fixed,
        moved,
        torch.ones_like(fixed[:, :1]),
        DiffusionSettings(iterations=steps, regularization=regularization, step=settings.step),
        grid=control,
    )
    return found.tensor


def _grid(settings: SuitsSettings) -> Grid:
    return Grid((settings.shape[2], settings.shape[1], settings.shape[0]), (settings.spacing_mm,) * 3)


def _classes(*labels: Tensor) -> int:
    return max(int(each.max()) for each in labels) + 1


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels[0], classes).permute(0, 4, 1, 2, 3).float()


def held_out_figures(network: FeatCNN, images: list[Image], settings: SuitsSettings) -> dict[str, float]:
    """Distance to MIND of held-out images in their own branch, and Dice where they have labels."""
    network.eval()
    with torch.no_grad():
        losses = [float(replicator_loss(network, centered(i, settings.shape)[0], i.modality)) for i in images]
    network.train()
    figures = {"l1_to_mind": round(sum(losses) / len(losses), 4)} if losses else {}
    return figures | held_out_dice(network, images, settings)


def held_out_dice(network: FeatCNN, images: list[Image], settings: SuitsSettings) -> dict[str, float]:
    """Mean Dice of :func:`pair_dice`, same contrast and random contrast."""
    scores = pair_dice(network, images, settings)
    return {f"dice_{kind}": round(sum(values) / len(values), 4) for kind, values in scores.items()}


def pair_dice(network: FeatCNN, images: list[Image], settings: SuitsSettings) -> dict[str, list[float]]:
    """Mean Dice of the labels of each image registered to the next; the moving one in its own or a random contrast.

    "start" is what the images have in common centered, before any registration.
    """
    network.eval()
    image_grid = _grid(settings)
    control = image_grid.strided(network.stride)
    scores: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for k, image in enumerate(images):
            (fixed, target), (moving, labels) = (centered(i, settings.shape) for i in (image, images[k - 1]))
            if len(images) < 2 or target is None or labels is None:
                continue
            other = _other(images[k - 1].modality)
            nothing = torch.zeros(1, 3, *control.shape)
            scores.setdefault("start", []).append(_mean_dice(labels, target, nothing, settings, image_grid))
            for kind, values, branch in (
                ("same", moving, images[k - 1].modality),
                ("other", random_contrast(moving, generator), other),
            ):
                pair = ((fixed, image.modality), (values, branch))
                if settings.label_driven:
                    u = image_descent(network, *pair, control, image_grid, settings)
                else:
                    first, second = (described(network, *side) for side in pair)
                    u = descent(first, second, control, settings, settings.iterations, settings.test_regularization)
                scores.setdefault(kind, []).append(_mean_dice(labels, target, u, settings, image_grid))
    network.train()
    return scores


def _mean_dice(labels: Tensor, target: Tensor, u: Tensor, settings: SuitsSettings, grid: Grid) -> float:
    field = quadratic_spline(u, settings.shape)
    return mean_dice(labels, target, lambda mask: warped(mask, field, grid))


def _other(modality: str) -> str:
    return "mr" if modality == "ct" else "ct"


class _Draws:
    """Losses of random training images, in their own or another modality's contrast."""

    def __init__(self, network: FeatCNN, images: list[Image], settings: SuitsSettings) -> None:
        self.network, self.images, self.settings = network, images, settings

    def replicate(self, generator: torch.Generator) -> Drawn:
        """Of the replicator, on a random part of an image."""
        image = self._image(generator)
        low = random_corner(image.values.shape[2:], self.settings.shape, generator)
        values = cropped(image.values, low, self.settings.shape).float()
        if float(values.std()) < _FLAT:
            return None
        return replicator_loss(self.network, *self._recolored(values, image.modality, generator)), {}

    def register(self, generator: torch.Generator) -> Drawn:
        """End to end, on pairs of whole images."""
        losses = []
        for _ in range(self.settings.batch):
            fixed, moving = self._whole(generator), self._whole(generator)
            k_back = int(torch.randint(self.settings.iterations + 1, (1,), generator=generator))
            losses.append(pair_loss(self.network, fixed, moving, k_back, self.settings))
        return torch.stack(losses).mean(), {}

    def _image(self, generator: torch.Generator) -> Image:
        return self.images[int(torch.randint(len(self.images), (1,), generator=generator))]

    def _recolored(self, values: Tensor, modality: str, generator: torch.Generator) -> tuple[Tensor, str]:
        if float(torch.rand(1, generator=generator)) < self.settings.contrast:
            return random_contrast(values, generator), _other(modality)
        return values, modality

    def _whole(self, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
        image = self._image(generator)
        values, labels = centered(image, self.settings.shape)
        assert labels is not None
        values, branch = self._recolored(values, image.modality, generator)
        return values, labels, branch


def train(
    data: Path | None,
    output: Path,
    *,
    end_to_end: bool,
    settings: SuitsSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train the replicator, or end to end from its weights; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files.
    """
    if end_to_end and start_from is None and not resume:
        raise InputError("train suits goes on from a replicator; give --start-from with the weights of train featcnn.")
    if any(n % 4 for n in settings.shape):
        raise InputError("the box ('shape') must be a multiple of 4 voxels along every axis.")
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training, held_out = split_images(data, settings, progress)
    if end_to_end:
        training = [image for image in training if image.labels is not None]
        if len(training) < 2:
            raise InputError("training end to end needs at least two images with label maps that are not held out.")
    network = FeatCNN(settings.reductions)
    if start_from is not None:
        network = load_network(FeatCNN, start_from).requires_grad_(True)
    draws = _Draws(network, training, settings)
    peak = settings.learning_rate if end_to_end else settings.pretraining_rate
    plan = Plan(
        settings,
        torch.optim.Adam(network.parameters(), lr=peak),
        lambda step, share: peak,
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda _network: held_out_figures(network, held_out, settings),
        minutes,
        steps or (250 if end_to_end else 5000),
    )
    loop = Loop(network, output, plan, resume=resume)
    return loop.run(draws.register if end_to_end else draws.replicate, progress)
