"""Training of the organ network: ``samconvex train semantic``; needs CTs with label maps that may be incomplete.

Weak supervision: an organ that a case does not label has no loss there, and neither has the rest of a tubular organ
(spinal cord, esophagus) below its last contour, which ends where the planning ended, not where the organ does. Cases
without labels can serve as negatives for organs that their region does not contain. Sets of cases that label different
organs, under numbers of their own, are learned together (``label_groups``).
"""

from __future__ import annotations

import fnmatch
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import chosen_device
from ..errors import InputError
from ..networks.sam_compact import SAMCompact
from ..networks.semantic import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, HU_RANGE, ORGANS, SemanticNet, prepare
from .data.augmentation import augment_curve, augment_hu, augment_window
from .data.images import Image, split_images
from .data.prepared import prepared
from .data.views import View, random_view
from .loop import Drawn, Loop, Plan, half_precise, warm_cosine, writer

LOGGER = logging.getLogger(__name__)
_AIR = HU_RANGE[0]
_TISSUE = -300
# Voxels of an organ in a batch below which its overlap says nothing.
_LEAST_VOXELS = 20
_PLACES = 400
_GROUP_KEYS = {"cases", "labels", "tubular", "share", "windowed", "mirrored"}


@dataclass
class SemanticSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out; their Dice is measured before and after.
        organs: names of the organs; without ``label_groups`` those of the labels 1, 2, ...
        tubular: labels whose lower end is arbitrary, without ``label_groups``.
        label_groups: name -> a set of cases whose labels mean the same: ``cases``, patterns of their names; ``labels``,
            number -> organ; and optionally ``tubular``, organs whose lower end is arbitrary there; ``share``, how often
            a labeled crop is drawn from there against the others; ``windowed``, true where grey values were cut to
            ``window``; ``mirrored``, pairs of organs that change sides in a mirror, where the anatomy is symmetric
            enough that half of its crops are seen in one. Labels of cases of no group are not used.
        negatives: patterns of case names -> organs (names or numbers from 1) that cannot be there. What such a case
            labels counts only where it is in a label group; the other organs are unknown there.
        window: Hounsfield units that other sets of cases are cut to half of the time, so that a window tells nothing;
            cases that were cut get bone and lung above and below it half of the time. Empty: nothing of this.
        negative_share: how often a crop is drawn from those.
        organ_share: how often a crop is centered near a labeled organ instead of anywhere in the body.
        shapes: crops in voxels (z, y, x), multiples of 16; one is drawn per step.
        widths, blocks, detail: see networks/semantic.py.
        scale, rotation_deg, elastic_voxels, cut_probability, intensity: augmentation; see views.py and augmentation.py.
        cross_entropy: weight against the soft Dice loss.
        learning_rate, warmup: peak, and the share of the run before it; a cosine leads down to a hundredth.
        weight_decay: decoupled from the gradient (AdamW).
        average: decay of the averaged (EMA) weights that are written; None writes the last ones.
        workers: processes that prepare batches in advance; 0 prepares them between steps, and a GPU its own.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    organs: tuple[str, ...] = ORGANS
    tubular: tuple[int, ...] = (2, 5)
    label_groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    negatives: dict[str, list[int | str]] = field(default_factory=dict)
    window: tuple[float, ...] = ()
    negative_share: float = 0.1
    organ_share: float = 0.75
    spacing_mm: float = 3.0
    shapes: tuple[tuple[int, int, int], ...] = ((64, 64, 64), (80, 64, 64), (64, 64, 80))
    widths: tuple[int, ...] = (32, 64, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    detail: int = 16
    batch: int = 2
    scale: tuple[float, float] = (0.85, 1.18)
    rotation_deg: float = 12.0
    elastic_voxels: float = 1.5
    cut_probability: float = 0.3
    intensity: float = 1.0
    cross_entropy: float = 5.0
    learning_rate: float = 2e-3
    warmup: float = 0.02
    weight_decay: float = 0.0
    average: float | None = None
    bfloat16: bool = True
    workers: int = 0
    threads: int = 2
    seed: int = 0


@dataclass
class Example:
    """An image with what is known about it.

    Attributes:
        hu: int16 (1, 1, D, H, W), identity direction.
        labels: uint8 of the same shape, number of the organ in ``settings.organs``, or None.
        known: bool (organs, D): slices in which the labels tell where the organ is and where not.
        places: (n, 3) voxels (z, y, x) of each labeled organ, and of the body under 0.
        group: name in ``settings.label_groups``, empty without.
        slabs: the different rows of ``known``, uint8 (n, D), and which of them is each organ's (organs,).
    """

    name: str
    hu: Tensor
    labels: Tensor | None
    known: Tensor
    places: dict[int, Tensor]
    group: str = ""
    slabs: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        rows, which = torch.unique(self.known, dim=0, return_inverse=True)
        self.slabs = rows.to(torch.uint8), which

    def to(self, device: torch.device) -> Example:
        """The same with image and labels on a device; places stay."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, hu=self.hu.to(device), labels=labels, known=self.known.to(device))


def check_settings(settings: SemanticSettings) -> None:
    """Refuse what no example could be made with.

    Raises:
        InputError: crops of an unusable size; groups or negatives that name unknown organs or settings.
    """
    if any(n % SemanticNet.multiple for shape in settings.shapes for n in shape):
        raise InputError(f"the crops ('shapes') must be multiples of {SemanticNet.multiple} voxels along every axis.")
    if len(settings.window) not in (0, 2):
        raise InputError("'window' must be two Hounsfield units, lower and upper.")
    for name, group in settings.label_groups.items():
        unknown = sorted(set(group) - _GROUP_KEYS)
        if unknown or not {"cases", "labels"} <= set(group):
            known = ", ".join(sorted(_GROUP_KEYS))
            raise InputError(f"label group {name!r} needs 'cases' and 'labels', and may hold nothing but {known}.")
        pairs = group.get("mirrored", [])
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise InputError(f"label group {name!r}: 'mirrored' must hold pairs of organs.")
        organ_numbers(settings, [*group["labels"].values(), *group.get("tubular", []), *itertools.chain(*pairs)])
        if not all(str(key).isdigit() and 0 < int(key) < 256 for key in group["labels"]):
            raise InputError(f"label group {name!r}: labels must be numbers from 1 to 255.")
    for organs in settings.negatives.values():
        organ_numbers(settings, organs)


def organ_numbers(settings: SemanticSettings, organs: list[Any]) -> list[int]:
    """Names, or numbers, as numbers from 1.

    Raises:
        InputError: an organ that ``settings.organs`` does not list.
    """
    numbers = {name: k + 1 for k, name in enumerate(settings.organs)}
    found = [numbers.get(organ, 0) if isinstance(organ, str) else int(organ) for organ in organs]
    for organ, number in zip(organs, found, strict=True):
        if not 1 <= number <= len(settings.organs):
            raise InputError(f"the organ {organ!r} is not among 'organs': {', '.join(settings.organs)}.")
    return found


def _group_of(name: str, settings: SemanticSettings) -> str | None:
    """The label group that a case belongs to."""
    for group, content in settings.label_groups.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in content["cases"]):
            return group
    return None


def _numbered(labels: Tensor, group: dict[str, Any], settings: SemanticSettings) -> Tensor:
    """A group's labels -> numbers of organs; what the group does not name becomes 0."""
    table = torch.zeros(256, dtype=torch.uint8)
    for label, organ in group["labels"].items():
        table[int(label)] = organ_numbers(settings, [organ])[0]
    return table[labels.long()]


def make_example(image: Image, settings: SemanticSettings) -> Example | None:
    """What an image teaches; None where that is nothing."""
    lower, upper = HU_RANGE
    hu = (image.values.float() * (upper - lower) + lower).round().to(torch.int16)
    known = torch.zeros(len(settings.organs), hu.shape[2], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)

    def spread(mask: Tensor) -> Tensor:
        voxels = mask.nonzero()
        return voxels[torch.randperm(len(voxels), generator=generator)[:_PLACES]]

    places = {0: spread(hu[0, 0] > _TISSUE)}
    absent = [numbers for pattern, numbers in settings.negatives.items() if fnmatch.fnmatch(image.name, pattern)]
    name = _group_of(image.name, settings)
    group = settings.label_groups[name] if name is not None else {}
    labels, tubular = image.labels, list(settings.tubular)
    if settings.label_groups:
        labels = _numbered(labels, group, settings) if labels is not None and group else None
        tubular = organ_numbers(settings, group.get("tubular", []))
    elif absent:  # what is labeled in such a case is something else, a tumor for example
        labels = None
    for numbers in absent:
        known[[number - 1 for number in organ_numbers(settings, numbers)]] = True
    if labels is not None:
        for label in range(1, len(settings.organs) + 1):
            mask = labels[0, 0] == label
            slices = mask.flatten(1).any(1).nonzero()[:, 0]
            if len(slices):
                known[label - 1] = False
                known[label - 1, int(slices[0]) if label in tubular else 0 :] = True
                places[label] = spread(mask)
        if len(places) == 1:
            labels = None
    if not len(places[0]) or not bool(known.any()):
        LOGGER.warning("left out: %s says nothing about any organ", image.name)
        return None
    return Example(image.name, hu, labels, known, places, name or "")


def truth(example: Example) -> tuple[Tensor, Tensor]:
    """Whether each voxel is in each organ, and whether that is known: uint8 (1, organs, D, H, W) both."""
    count, shape = len(example.known), example.hu.shape[2:]
    known = example.known[None, :, :, None, None].to(torch.uint8).expand(1, count, *shape)
    if example.labels is None:
        return torch.zeros_like(known), known
    numbers = torch.arange(1, count + 1, dtype=torch.uint8, device=known.device).view(1, -1, 1, 1, 1)
    return (example.labels == numbers).to(torch.uint8), known


def _seen(example: Example, view: View) -> tuple[Tensor, Tensor]:
    """Of a view: whether each voxel is in each organ, and whether that is known; float32 (1, organs, d, h, w)."""
    # Most organs are known in the same slices: only what differs is sampled.
    rows, which = example.slabs
    shape = example.hu.shape[2:]
    slabs = rows[None, :, :, None, None].expand(1, len(rows), *shape)
    known = (view.sample(slabs, 0.0) > 0.99).float().index_select(1, which)
    if example.labels is None:
        return torch.zeros_like(known), known
    labels = view.sample(example.labels, 0.0, "nearest")
    numbers = torch.arange(1, len(example.known) + 1, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels == numbers).float(), known


class Source:
    """Draws augmented crops.

    Args:
        examples: at least one.
    """

    def __init__(self, examples: list[Example], settings: SemanticSettings) -> None:
        self.settings = settings
        self.labeled: dict[str, list[Example]] = {}
        for example in examples:
            if example.labels is not None:
                self.labeled.setdefault(example.group, []).append(example)
        shares = [float(settings.label_groups.get(group, {}).get("share", 1.0)) for group in self.labeled]
        self.shares = torch.tensor(shares)
        self.negatives = [e for e in examples if e.labels is None]
        # Where each organ comes to lie in a mirror, by group.
        self.mirrors: dict[str, Tensor] = {}
        for name, group in settings.label_groups.items():
            order = list(range(len(settings.organs)))
            for pair in group.get("mirrored", []):
                one, other = (number - 1 for number in organ_numbers(settings, list(pair)))
                order[one], order[other] = other, one
            if "mirrored" in group:
                self.mirrors[name] = torch.tensor(order, device=examples[0].hu.device)

    def numbered(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of this number, always the same."""
        return self.draw(torch.Generator().manual_seed((self.settings.seed << 32) + number))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Network input (B, 1, d, h, w), organ shares and known (B, organs, d, h, w), float32."""
        shape = self.settings.shapes[self._index(len(self.settings.shapes), generator)]
        crops = [self._crop((shape[0], shape[1], shape[2]), generator) for _ in range(self.settings.batch)]
        images, targets, known = (torch.cat(part) for part in zip(*crops, strict=True))
        return images, targets, known

    def _members(self, generator: torch.Generator) -> list[Example]:
        if not self.labeled or self.negatives and self._share(generator) < self.settings.negative_share:
            return self.negatives
        groups = list(self.labeled.values())
        return groups[int(torch.multinomial(self.shares, 1, generator=generator)) if len(groups) > 1 else 0]

    def _crop(self, shape: tuple[int, int, int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        s = self.settings
        members = self._members(generator)
        example = members[self._index(len(members), generator)]
        labels = sorted(example.places)[1:]
        chosen = labels[self._index(len(labels), generator)] if labels and self._share(generator) < s.organ_share else 0
        places = example.places[chosen]
        center = places[self._index(len(places), generator)].float()
        center = center + (torch.rand(3, generator=generator) - 0.5) * 0.7 * torch.tensor(shape)
        view = random_view(
            center,
            shape,
            generator,
            scale=s.scale,
            rotation_deg=s.rotation_deg,
            elastic_voxels=s.elastic_voxels,
            cut_probability=s.cut_probability,
        )
        mirror = self.mirrors.get(example.group)
        if mirror is not None and self._share(generator) < 0.5:
            view.matrix = view.matrix * torch.tensor([1.0, 1.0, -1.0])
        else:
            mirror = None
        image = view.sample(example.hu, _AIR)
        if s.window:
            windowed = bool(s.label_groups.get(example.group, {}).get("windowed", False))
            image = augment_window(image, s.window, windowed, generator)
        image = augment_hu(image, generator, s.intensity)
        image = augment_curve(prepare(image), generator, s.intensity)
        # Outside of the image and in what was cut off, nothing is known.
        target, known = _seen(example, view)
        if mirror is not None:
            target, known = target.index_select(1, mirror), known.index_select(1, mirror)
        return image, target, known

    @staticmethod
    def _index(count: int, generator: torch.Generator) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    @staticmethod
    def _share(generator: torch.Generator) -> float:
        return float(torch.rand(1, generator=generator))


class _OrganLoss(torch.autograd.Function):
    """Value and gradient in one pass: autograd's own passes over so many channels cost half a step.

    A processor goes organ by organ, which its caches hold; a GPU takes all at once, and is not waited for.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, known: Tensor, cross_entropy: float) -> tuple[Tensor, Tensor]:
        space = (0, 2, 3, 4)
        voxels = known.sum(space)
        size = torch.einsum("bkdhw,bkdhw->k", target, known)
        organs, seen = voxels > 0, size >= _LEAST_VOXELS
        share = cross_entropy / (voxels.clamp(min=1) * organs.sum().clamp(min=1))
        counted_organs = seen.sum().clamp(min=1)
        gradient = torch.empty_like(logits)
        entropies, overlaps = torch.zeros_like(size), torch.zeros_like(size)
        count = logits.shape[1]
        at_once = count if logits.is_cuda else 1
        for k in range(0, count, at_once):
            part = slice(k, k + at_once)
            x, t, w = logits[:, part], target[:, part], known[:, part]
            if not logits.is_cuda and not bool(organs[k]):
                gradient[:, part] = 0
                continue
            inside = torch.sigmoid(x)
            entropies[part] = ((F.softplus(x) - x * t) * w).sum(space) / voxels[part].clamp(min=1)
            counted = inside * w
            both, total = 2 * (counted * t).sum(space) + 1, counted.sum(space) + size[part] + 1
            overlaps[part] = both / total * seen[part]
            # The soft Dice's slope, 2 t / total - both / total^2, through the sigmoid.
            first, second = (
                (seen[part] * each / counted_organs).view(-1, 1, 1, 1) for each in (2 / total, both / total**2)
            )
            slope = (inside - t) * share[part].view(-1, 1, 1, 1) - (t * first - second) * inside * (1 - inside)
            torch.mul(slope, w, out=gradient[:, part])
        entropy = entropies.sum() / organs.sum().clamp(min=1)
        ctx.save_for_backward(gradient)
        loss = cross_entropy * entropy + torch.where(seen.any(), 1 - overlaps.sum() / counted_organs, 0.0)
        ctx.mark_non_differentiable(entropy)
        return loss, entropy

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _entropy: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope, None, None, None


def organ_loss(logits: Tensor, target: Tensor, known: Tensor, cross_entropy: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy plus soft Dice per organ over the voxels where it is known.

    Args:
        logits, target, known: (B, organs, d, h, w); the target in [0, 1], known 0 or 1.
    """
    if logits.is_cuda:  # as the targets lie
        logits = logits.contiguous()
    loss, entropy = _OrganLoss.apply(logits, target, known, cross_entropy)  # type: ignore[no-untyped-call]
    return loss, {"entropy": entropy.detach()}


@torch.no_grad()
def held_out_dice(network: SemanticNet, examples: list[Example]) -> dict[str, float]:
    """Dice of whole images at probability 0.5: per organ the mean over cases that label it, and the mean of those."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    found: dict[str, list[float]] = {}
    for example in examples:
        shape = example.hu.shape[2:]
        padding = [(-n) % network.multiple for n in shape]
        image = F.pad(prepare(example.hu.float()), (0, padding[2], 0, padding[1], 0, padding[0]))
        logits = network(image.to(device))[:, :, : shape[0], : shape[1], : shape[2]]
        target, known = truth(example.to(device))
        inside = (logits > 0) & (known > 0)
        target = (target > 0) & (known > 0)
        both, sizes = ((x.sum((0, 2, 3, 4))) for x in (inside & target, target))
        total = inside.sum((0, 2, 3, 4)) + sizes
        for k, organ in enumerate(network.organs):
            if int(sizes[k]):
                found.setdefault(organ, []).append(2 * float(both[k]) / float(total[k]))
    network.train(was_training)
    means = {organ: round(sum(v) / len(v), 4) for organ, v in found.items()}
    return {**means, "mean": round(sum(means.values()) / len(means), 4)} if means else {}


def start_with(network: SemanticNet, known: SemanticNet | SAMCompact) -> None:
    """Take over another network's weights where shapes agree, and those of the last layer organ by organ.

    An embedding gives its stem, stages and way up, whose maps are twice and more as coarse as its image, as here; heads
    and what lies at full resolution stay random (Yan et al., 2022, section IV-H: SAM as initialization).

    Raises:
        InputError: nothing agrees, or an embedding's stages do not.
    """
    if isinstance(known, SAMCompact):
        _start_with_embedding(network, known)
        return
    own, given = network.state_dict(), known.state_dict()
    head = [key for key in own if key.startswith("head.1.")]
    taken = {k: v for k, v in given.items() if k not in head and k in own and own[k].shape == v.shape}
    if not any(key.startswith("stages.") and value.ndim > 1 for key, value in taken.items()):
        raise InputError("the weights to start from are of another architecture; look at 'widths' and 'blocks'.")
    for key in head:
        if own[key].shape[1:] == given[key].shape[1:]:
            taken[key] = own[key].clone()
            for k, organ in enumerate(network.organs):
                if organ in known.organs:
                    taken[key][k] = given[key][known.organs.index(organ)]
    network.load_state_dict({**own, **taken})


def _start_with_embedding(network: SemanticNet, known: SAMCompact) -> None:
    mine, theirs = ([list(net.config[key]) for key in ("widths", "blocks")] for net in (network, known))
    if mine != theirs:
        raise InputError(
            f"The embedding to start from has 'widths' {theirs[0]} and 'blocks' {theirs[1]}, the organ network "
            f"{mine[0]} and {mine[1]}; put the embedding's into the configuration (--config)."
        )
    for name in ("stem", "stages", "up"):
        getattr(network, name).load_state_dict(getattr(known, name).state_dict())
    # The embedding has nothing at its finest level that mixes; its first is this network's second.
    for k, layer in enumerate(known.merge):
        network.merge[k + 1].load_state_dict(layer.state_dict())


def train(
    data: Path | None,
    output: Path,
    *,
    settings: SemanticSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on the labeled CTs of a folder; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files. ResourceError: no such device.
    """
    check_settings(settings)
    where = chosen_device(device)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training, held_out = _examples(data, settings, progress)
    network = SemanticNet(settings.widths, settings.blocks, settings.detail, settings.organs, settings.spacing_mm)
    if start_from is not None:
        start_with(network, _network_to_start_from(start_from))
    network.to(where, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    ahead: list[tuple[Tensor, Tensor, Tensor]] = []

    def draw(_generator: torch.Generator) -> Drawn:
        image, target, known = ahead.pop() if ahead else next(batches)
        with half_precise(where, settings.bfloat16):
            logits = network(image)
        drawn = organ_loss(logits, target, known, settings.cross_entropy)
        if where.type != "cpu":  # while the GPU is at it
            ahead.append(next(batches))
        return drawn

    plan = Plan(
        settings,
        torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        warm_cosine(settings.learning_rate, settings.warmup),
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda result: held_out_dice(result, held_out),  # type: ignore[arg-type]
        minutes,
        steps or 100_000,
        average=settings.average,
    )
    loop = Loop(network, output, plan, resume=resume)
    # A GPU draws its crops itself, faster than the processors around it would.
    source = Source([example.to(where) for example in training], settings)
    batches = prepared(source.numbered, loop.number, settings.workers if where.type == "cpu" else 0)
    try:
        return loop.run(draw, progress)
    finally:
        batches.close()


def _network_to_start_from(path: Path) -> SemanticNet | SAMCompact:
    """An organ network, or a compact embedding of CT.

    Raises:
        InputError: other weights, or an unusable file.
    """
    from ..weights.models import SAM, family_of, load_compact, load_network

    return load_compact(path) if family_of(path) == SAM else load_network(SemanticNet, path)


def _examples(
    data: Path | None, settings: SemanticSettings, progress: Callable[[str, float, str], None]
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and those held out."""
    taken, left_out = split_images(data, settings, progress, phantoms=4, phantoms_held_out=1)

    def examples_of(images: list[Image]) -> list[Example]:
        made = (make_example(image, settings) for image in images if image.modality == "ct")
        return [example for example in made if example is not None]

    training, held_out = examples_of(taken), examples_of(left_out)
    if not any(e.labels is not None for e in training):
        raise InputError("no labeled CT is left to train on; a label map is to lie next to NAME_ct as NAME_seg.")
    return training, held_out
