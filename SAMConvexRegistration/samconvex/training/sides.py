"""Training of the network that tells mirrored patients: ``samconvex train sides``; needs CTs, no labels.

A patient and the mirror image are one example: the network's answer changes sign under a mirror by construction, so
every right window only has to come out above zero. Windows turn, stretch, bend, lie beside the middle, end in the
body, and show other contrast agent, noise, scanners and patches of other tissue; sets cut to a soft tissue window are
blended with the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..anatomy.sides import AIR_HU, answers, middle_of
from ..device import chosen_device
from ..errors import InputError
from ..io.images import read_volume
from ..networks.sides import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, SidesNet, prepare
from ..space.intensity import check_ct
from ..synthetic.phantom import make_phantom
from ..weights.models import load_network
from .data.augmentation import augment_hu, augment_window
from .data.cases import Case, case_name, find_cases, load_each, make_case
from .data.views import random_view
from .loop import Drawn, Loop, Plan, warm_cosine, writer

# What contrast agent leaves alone lies below this.
_ENHANCED_HU = 40.0
# Half axes of what is drawn over the body, and what it is made of: gas, lung, fat, fluid, tissue, enhanced tissue.
_BLOB_MM = (20.0, 75.0)
_TISSUES_HU = (-950.0, -800.0, -100.0, 10.0, 50.0, 130.0)


@dataclass
class SidesSettings:
    """Recipe.

    Attributes:
        include, exclude: patterns of relative paths to take and of case names never to touch.
        validation: case names held out.
        group_shares: folder -> how often a window is drawn from there; folders that are not named share equally.
        window, windowed: Hounsfield units that the folders ``windowed`` are cut to.
        shape, spacing_mm, widths, hidden, dropout: see networks/sides.py.
        scale, rotation_deg, elastic_voxels, cut_probability: of the windows; see data/views.py.
        shift_mm: how far a window may lie beside the middle of the body.
        enhancement: octaves by which contrast agent may be more or less.
        blobs: most ellipsoids of other tissue drawn over a window, as effusions, masses and missing organs are: no
            single organ may decide.
        average: decay of the averaged weights, which are what is written.
        size: weight of the answers' squares, which keeps the network from being surer than it can be.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    group_shares: dict[str, float] = field(default_factory=dict)
    window: tuple[float, ...] = (-125.0, 275.0)
    windowed: tuple[str, ...] = ()
    shape: tuple[int, int, int] = (16, 24, 32)
    spacing_mm: float = 12.0
    widths: tuple[int, ...] = (16, 32, 48)
    hidden: int = 32
    dropout: float = 0.3
    scale: tuple[float, float] = (0.85, 1.18)
    rotation_deg: float = 15.0
    elastic_voxels: float = 0.7
    cut_probability: float = 0.3
    shift_mm: float = 24.0
    enhancement: float = 1.0
    blobs: int = 4
    size: float = 2e-3
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    average: float = 0.98
    threads: int = 1
    seed: int = 0


def drawn_window(case: Case, settings: SidesSettings, generator: torch.Generator) -> Tensor:
    """(1, 1, *shape) Hounsfield units of a case somewhere along the body, changed at random."""
    rows = case.body.flatten(1).any(1).nonzero()[:, 0]
    low, high = float(rows.min()), float(rows.max())
    end = min(32.0 / settings.spacing_mm, (high - low) / 2)
    height = low + end + float(torch.rand(1, generator=generator)) * (high - low - 2 * end)
    aside = (torch.rand(3, generator=generator) - 0.5) * 2 * settings.shift_mm / settings.spacing_mm
    view = random_view(
        torch.tensor(middle_of(case.body, height, settings.shape)) + aside,
        settings.shape,
        generator,
        scale=settings.scale,
        rotation_deg=settings.rotation_deg,
        elastic_voxels=settings.elastic_voxels,
        cut_probability=settings.cut_probability,
    )
    image = view.sample(case.masked, AIR_HU)
    image = augment_window(image, settings.window, case.group in settings.windowed, generator)
    octaves = (2 * float(torch.rand(1, generator=generator)) - 1) * settings.enhancement
    above = (image - _ENHANCED_HU).clamp(min=0)
    image = image + above * (2**octaves - 1)
    for _ in range(int(torch.randint(settings.blobs + 1, (1,), generator=generator))):
        image = _with_blob(image, settings.spacing_mm, generator)
    return augment_hu(image, generator)


def _with_blob(image: Tensor, spacing_mm: float, generator: torch.Generator) -> Tensor:
    """(1, 1, D, H, W) with an ellipsoid of one tissue somewhere in the body."""
    shape = torch.tensor(image.shape[2:])
    middle = torch.rand(3, generator=generator) * (shape - 1)
    radius = (_BLOB_MM[0] + torch.rand(3, generator=generator) * (_BLOB_MM[1] - _BLOB_MM[0])) / spacing_mm
    z, y, x = (
        ((torch.arange(n) - float(m)) / float(r)) ** 2 for n, m, r in zip(shape.tolist(), middle, radius, strict=True)
    )
    inside = (z[:, None, None] + y[:, None] + x < 1) & (image > AIR_HU + 10)
    tissue = _TISSUES_HU[int(torch.randint(len(_TISSUES_HU), (1,), generator=generator))]
    return torch.where(inside, torch.tensor(tissue), image)


class Source:
    """Draws windows, folder by folder.

    Args:
        cases: at least one.
    """

    def __init__(self, cases: list[Case], settings: SidesSettings) -> None:
        self.settings = settings
        self.groups: dict[str, list[Case]] = {}
        for case in cases:
            self.groups.setdefault(case.group, []).append(case)
        self.shares = torch.tensor([float(settings.group_shares.get(group, 1.0)) for group in self.groups])
        if not bool((self.shares > 0).any()):
            raise InputError("'group_shares' leaves no folder to draw from.")

    def draw(self, generator: torch.Generator) -> Tensor:
        """(batch, 1, *shape) Hounsfield units."""
        groups = list(self.groups.values())
        chosen = torch.multinomial(self.shares, self.settings.batch, replacement=True, generator=generator)
        parts = []
        for group in chosen.tolist():
            members = groups[group]
            case = members[int(torch.randint(len(members), (1,), generator=generator))]
            parts.append(drawn_window(case, self.settings, generator))
        return torch.cat(parts)


def held_out(network: SidesNet, cases: list[Case]) -> dict[str, Any]:
    """Mean answer for each case, and the shares of cases and of windows above zero."""
    was_training = network.training
    network.eval()
    found = {case.name: answers(network, case.masked, case.body) for case in cases}
    network.train(was_training)
    if not found:
        return {}
    means = {name: round(float(values.mean()), 2) for name, values in found.items()}
    return {
        "right": round(sum(value > 0 for value in means.values()) / len(means), 4),
        "windows_right": round(float((torch.cat(list(found.values())) > 0).float().mean()), 4),
        "scores": means,
    }


def sides_loss(answer: Tensor, size: float) -> tuple[Tensor, dict[str, float]]:
    """Logistic loss of answers (B,) that should be above zero, and the share that is."""
    loss = F.softplus(-answer).mean() + size * answer.square().mean()
    return loss, {"right": float((answer.detach() > 0).float().mean())}


def train(
    data: Path | None,
    output: Path,
    *,
    settings: SidesSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on the CTs of a folder; ``data`` None draws invented torsos.

    Raises:
        InputError: unusable data, settings or files.
    """
    chosen_device(device)
    cases = cases_of(data, settings, progress)
    budget: dict[str, Any] = {
        "minutes": minutes,
        "steps": steps,
        "resume": resume,
        "start_from": start_from,
        "device": device,
    }
    return train_on(cases, output, settings=settings, progress=progress, **budget)


def train_on(
    cases: list[Case],
    output: Path,
    *,
    settings: SidesSettings,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str, float, str], None] = lambda stage, fraction, message: None,
) -> dict[str, Any]:
    """Train on cases in memory, but for those that the settings hold out.

    Raises:
        InputError: unusable settings or files.
    """
    if any(n % SidesNet.multiple for n in settings.shape):
        raise InputError("the window ('shape') must be a multiple of 8 voxels along every axis.")
    if len(settings.window) != 2:
        raise InputError("'window' must be two Hounsfield units, lower and upper.")
    where = chosen_device(device)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    training = [case for case in cases if case.name not in settings.validation]
    if not training:
        raise InputError("every image is held out for validation; nothing is left to train on.")
    source = Source(training, settings)
    network = (
        SidesNet(settings.widths, settings.hidden, settings.dropout, settings.shape, settings.spacing_mm)
        if start_from is None
        else load_network(SidesNet, start_from).requires_grad_(True)
    )

    network.to(where)

    def draw(generator: torch.Generator) -> Drawn:
        return sides_loss(network(prepare(source.draw(generator)).to(where)), settings.size)

    plan = Plan(
        settings,
        torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        warm_cosine(settings.learning_rate, settings.warmup),
        writer(CHECKPOINT_FORMAT, CHECKPOINT_VERSION),
        lambda found: held_out(found, [case for case in cases if case.name in settings.validation]),  # type: ignore[arg-type]
        minutes,
        steps or 100_000,
        average=settings.average,
    )
    return Loop(network, output, plan, resume=resume).run(draw, progress)


def cases_of(data: Path | None, settings: SidesSettings, progress: Callable[[str, float, str], None]) -> list[Case]:
    """The usable CTs of a folder, the others left out with a log line; ``data`` None draws invented torsos.

    Raises:
        InputError: nothing usable.
    """
    if data is None:
        drawn = [make_phantom(seed, 6.0) for seed in range(3)]
        return [
            make_case(p.ct, None, name=f"phantom{k:02d}", group="phantom", spacing=settings.spacing_mm)
            for k, p in enumerate(drawn)
        ]

    def build(path: Path, _labels: Path | None) -> Case:
        volume = read_volume(path)
        check_ct(volume)
        return make_case(volume, None, name=case_name(path), group=path.parent.name, spacing=settings.spacing_mm)

    found = find_cases(data, list(settings.include), list(settings.exclude))
    cases = load_each(found, build, lambda fraction, message: progress("data", fraction, message))
    if not cases:
        raise InputError(f"{data} holds no usable CT.")
    return cases
