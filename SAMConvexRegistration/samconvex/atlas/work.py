"""What is done for one image of an atlas at a time, in this process or in a worker of a cluster.

Fields and warped images pass through files of a scratch folder, so that no process holds more than one image's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from ..anatomy.body import body_mask
from ..anatomy.missing import missing_part
from ..errors import InputError
from ..io.images import read_labels, read_mask, read_volume
from ..progress import Progress
from ..registration.register import find_map, register
from ..settings.registration import Settings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume
from .subjects import Facts, Subject, marked, scaled

J = TypeVar("J")
R = TypeVar("R")
# What of a registration's stages one image of a round takes, for the bar.
_STAGES = ("prepare", "affine", "embedding", "coarse", "convex", "refine", "finish", "error", "measure")


class Spread(Protocol):
    """Runs ``work(job, progress)`` for every job, anywhere, and gives the results in the order of the jobs."""

    def __call__(
        self, work: Callable[[J, Progress | None], R], jobs: Sequence[J], progress: Progress, stage: str
    ) -> list[R]: ...


def one_by_one(work: Callable[[J, Progress | None], R], jobs: Sequence[J], progress: Progress, stage: str) -> list[R]:
    """A :class:`Spread` in this process."""
    results = []
    for number, job in enumerate(jobs):
        progress(stage, number / len(jobs), f"{number + 1} of {len(jobs)}")
        results.append(work(job, _part(progress, stage, number, len(jobs))))
    progress(stage, 1.0)
    return results


def _part(progress: Progress, name: str, number: int, count: int) -> Progress:
    """Progress of one of ``count`` registrations within the stage ``name``."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        place = (_STAGES.index(stage) + fraction) / len(_STAGES) if stage in _STAGES else 0.0
        progress(name, (number + min(place, 1.0)) / count)

    return report


@dataclass(frozen=True)
class Job:
    """One image in a round.

    Attributes:
        subject, facts: the image.
        settings: of the registration. options: further arguments of :func:`samconvex.register`.
        affine: template points to points of the image, so far.
        scratch: folder for what passes between the rounds.
        number: of the image; names its files there.
        brightness: what images without Hounsfield units are scaled to.
        template_grid, field_grid: of the mean image, and of all fields.
        last: the registration is judged too.
    """

    subject: Subject
    facts: Facts
    settings: Settings
    options: dict[str, Any]
    affine: AffineTransform
    scratch: Path
    number: int
    brightness: float
    template_grid: Grid
    field_grid: Grid
    last: bool = False

    def file(self, kind: str) -> Path:
        return self.scratch / f"{kind}-{self.number:05d}.npy"


@dataclass(frozen=True)
class Found:
    """What a registration found.

    Attributes:
        affine: its linear part. warnings: of the registration.
        verdict, expected_error_mm: of the last round, the level and the median of the bound.
    """

    affine: AffineTransform
    warnings: tuple[str, ...]
    verdict: str = ""
    expected_error_mm: float | None = None


def template_path(scratch: Path) -> Path:
    return scratch / "template.nii.gz"


def mask_path(scratch: Path) -> Path:
    return scratch / "mask.nii.gz"


def mean_path(scratch: Path) -> Path:
    """The inverse of the mean displacement."""
    return scratch / "mean-inverse.npy"


def aligned(job: Job, progress: Progress | None) -> Found:
    """The linear map from the first image to another."""
    settings = job.settings.linear_part
    fixed = read_volume(template_path(job.scratch))
    transform, warnings = find_map(
        fixed, job.subject.volume(), preset=settings, progress=progress, **_masks(job), **job.options
    )
    parts = transform.parts
    affine = parts[-1] if parts and isinstance(parts[-1], AffineTransform) else AffineTransform.identity()
    return Found(affine, tuple(warnings))


def registered(job: Job, progress: Progress | None) -> Found:
    """The field from the template to the image after its linear map, saved on the common grid."""
    fixed, moving = read_volume(template_path(job.scratch)), job.subject.volume()
    asked = {
        "preset": job.settings,
        "initial_transform": Transform((job.affine,)),
        "progress": progress,
        **_masks(job),
        **job.options,
    }
    if job.last:
        result = register(fixed, moving, **asked)
        transform, report = result.fixed_to_moving, result.report
        expected = report.get("expected_error_mm", {}).get("median")
        found = Found(job.affine, tuple(report["warnings"]), report["verdict"]["level"], expected)
    else:
        transform, warnings = find_map(fixed, moving, **asked)
        found = Found(job.affine, tuple(warnings))
    first = transform.parts[0]
    field = first if isinstance(first, DisplacementField) else DisplacementField.zeros(job.field_grid)
    np.save(job.file("field"), field.on_grid(job.field_grid).tensor.cpu().numpy())
    return found


def _masks(job: Job) -> dict[str, Any]:
    if job.subject.mask is None:
        return {}
    own = mask_path(job.scratch)
    return {
        "moving_mask": read_mask(job.subject.mask),
        "fixed_mask": read_mask(own) if own.is_file() else None,
    }


def corrected(job: Job) -> Transform:
    """The map from the template to the image, less the mean displacement."""
    if not job.file("field").is_file():
        return Transform((job.affine,))
    field = DisplacementField(torch.from_numpy(np.load(job.file("field"))), job.field_grid)
    if mean_path(job.scratch).is_file():
        # (id + u) after the inverse of the mean: where a point of the new template lies in the old one comes first.
        back = DisplacementField(torch.from_numpy(np.load(mean_path(job.scratch))), job.field_grid)
        field = field.after(back)
    return Transform((field, job.affine))


def pulled(job: Job, progress: Progress | None = None) -> None:
    """The image on the template's grid (``image``, float32), and where it was seen (``seen``, uint8), saved."""
    volume, transform = job.subject.volume(), corrected(job)
    bright = scaled(volume, job.facts, job.brightness)
    warped, seen = transform.warp_with_validity(bright, job.template_grid)
    mask = marked(job.subject, volume)
    if mask is not None:
        inside = transform.warp_nearest(volume.with_tensor(mask.to(torch.uint8)), job.template_grid).tensor
        np.save(job.file("mask"), inside[0, 0].numpy())
    np.save(job.file("image"), warped.tensor[0, 0].numpy())
    np.save(job.file("seen"), seen.tensor[0, 0].numpy())
    body = _body(volume)
    shown = seen.tensor * 0 if body is None else transform.warp_nearest(body, job.template_grid).tensor
    np.save(job.file("body"), shown[0, 0].numpy())


def _body(volume: Volume) -> Volume | None:
    try:
        return body_mask(volume)
    except InputError:
        return None


def bodies_path(scratch: Path) -> Path:
    """Where enough images show a body, on the template."""
    return scratch / "bodies.nii.gz"


def without_blanks(job: Job, progress: Progress | None = None) -> None:
    """Take out of ``seen`` what was blanked out of the image: enough others show a thick part of the body there."""
    volume = job.subject.volume()
    body = _body(volume)
    if body is None or not bodies_path(job.scratch).is_file():
        return
    missing = missing_part(volume, body, read_mask(bodies_path(job.scratch)), corrected(job), volume)
    if missing is not None:
        seen = np.load(job.file("seen"))
        seen[(Transform().warp_nearest(missing, job.template_grid).tensor > 0)[0, 0].numpy()] = 0
        np.save(job.file("seen"), seen)


@dataclass(frozen=True)
class Last:
    """The last round's job.

    Attributes:
        job: as in the rounds before.
        folder: for the maps.
        points: (N, 3) LPS mm of the template, where the drift is measured.
    """

    job: Job
    folder: Path
    points: np.ndarray


def finished(last: Last, progress: Progress | None = None) -> np.ndarray:
    """Save the maps, and the image and its labels on the template; returns where ``points`` lie in the image, (N, 3).

    The points are mapped by the file that was written: what is measured is what a user gets.
    """
    job = last.job
    transform = corrected(job)
    saved = last.folder / f"{job.subject.name}-transform.h5"
    transform.save(saved)
    transform.inverse().save(last.folder / f"{job.subject.name}-inverse.h5")
    pulled(job, progress)
    if job.subject.labels is not None:
        labels = transform.warp_labels(read_labels(job.subject.labels), job.template_grid)
        np.save(job.file("labels"), labels.tensor[0, 0].to(torch.int64).numpy())
    return Transform.load(saved).map_points(last.points)
