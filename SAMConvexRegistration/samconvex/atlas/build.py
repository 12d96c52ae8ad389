"""The rounds of an atlas: all images to the template, their mean, and the template less the mean displacement.

After Guimond, Meunier and Thirion (2000): the mean of the maps from the template to the images is the identity, so that
no image has a larger part in the template's shape than another, the one that it began with included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ..anatomy.body import body_mask
from ..errors import InputError
from ..io.images import write_volume
from ..memory import peak_memory_mib
from ..progress import Progress
from ..report.environment import environment, utc_now
from ..report.metrics import summary
from ..report.verdict import DO_NOT_USE
from ..settings.registration import Settings
from ..space.grid import Grid
from ..space.transforms import AffineTransform
from ..space.volume import Volume
from ..version import __version__
from .averages import Mean, averaged, centered, gradient_magnitude, majority, mean_displacement, shrinkage_percent
from .subjects import Facts, Subject, SubjectFaults, check_one_kind, copies, inspected
from .work import (
    Found,
    Job,
    Last,
    Spread,
    aligned,
    bodies_path,
    finished,
    mask_path,
    mean_path,
    one_by_one,
    pulled,
    registered,
    template_path,
    without_blanks,
)

# A voxel of the template is one that this share of the images saw.
_LEAST = 0.25
_POINTS = 20_000
# From here on the mean is told to be smaller than the images.
_SHRINKAGE_PERCENT = 1.0


@dataclass(frozen=True)
class AtlasSettings:
    """How an atlas is made.

    Attributes:
        settings: of the registrations to the template.
        iterations: rounds.
        spacing: of the template, mm; None takes that of the images.
        start: name of the image to begin with; None takes one of usual size.
        options: further arguments of :func:`samconvex.register`, such as device, threads, seed.
    """

    settings: Settings
    iterations: int = 3
    spacing: float | None = None
    start: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Atlas:
    """An atlas under way."""

    subjects: list[Subject]
    facts: list[Facts]
    how: AtlasSettings
    scratch: Path
    spread: Spread
    progress: Progress
    warnings: list[str]
    affines: list[AffineTransform] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    grid: Grid | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def least(self) -> int:
        return max(1, math.ceil(_LEAST * len(self.subjects)))

    @property
    def background(self) -> float:
        return float(np.median([facts.background for facts in self.facts]))

    def jobs(self, grid: Grid) -> list[Job]:
        settings = self.how.settings
        fields = Grid.covering(grid.corners(), settings.field_spacing, margin_mm=2 * settings.field_spacing)
        brightness = float(np.median([facts.brightness for facts in self.facts]))
        affines = self.affines or [AffineTransform.identity()] * len(self.subjects)
        return [
            Job(subject, facts, settings, self.how.options, affine, self.scratch, number, brightness, grid, fields)
            for number, (subject, facts, affine) in enumerate(zip(self.subjects, self.facts, affines, strict=True))
        ]


def build_atlas(
    subjects: Sequence[Subject],
    folder: Path,
    scratch: Path,
    how: AtlasSettings,
    *,
    progress: Progress,
    spread: Spread = one_by_one,
    source: str = "the list of images",
) -> dict[str, Any]:
    """Make the atlas and write everything but atlas.json into ``folder``.

    Args:
        folder: receives template, coverage, std, maps, and labels and mask where the images have them.
        scratch: for what passes between the rounds; every worker must see it.
        spread: where the images are worked on.
        source: how messages call the list.

    Returns:
        The document of atlas.json.

    Raises:
        SubjectFaults: images that cannot be used. Cancelled: by ``progress``. ResourceError: memory, disk, device.
    """
    began = time.perf_counter()
    facts = spread(inspected, list(subjects), progress, "read")
    faults = [fault for known in facts for fault in known.faults]
    if faults or (faults := check_one_kind(facts, subjects)):
        raise SubjectFaults(source, faults)
    notes = [*(note for known in facts for note in known.notes), *copies(facts, subjects)]
    atlas = _Atlas(list(subjects), facts, how, scratch, spread, progress, notes)
    start = _begin(atlas)
    mean = _first_mean(atlas)
    for number in range(how.iterations):
        mean = _round(atlas, number, mean)
    drift = _finish(atlas, folder)
    return {**_document(atlas, start, drift), "seconds": time.perf_counter() - began}


def _begin(atlas: _Atlas) -> Subject:
    """Linear maps from the first image to all others, and from there to the frame of their mean."""
    number = _start(atlas)
    start = atlas.subjects[number]
    volume = start.volume()
    write_volume(Volume(volume.as_float(), volume.grid, sitk.sitkFloat32), template_path(atlas.scratch))
    jobs = atlas.jobs(volume.grid)
    others = [job for job in jobs if job.number != number]
    results = atlas.spread(aligned, others, atlas.progress, "affine")
    found = {job.number: result for job, result in zip(others, results, strict=True)}
    for job in others:
        atlas.warnings += [f"{job.subject.name}: {text}" for text in found[job.number].warnings if "affine" in text]
    atlas.affines = centered(
        [found[job.number].affine if job.number in found else AffineTransform.identity() for job in jobs]
    )
    shrinkage = shrinkage_percent(atlas.affines)
    if shrinkage > _SHRINKAGE_PERCENT:
        atlas.warnings.append(
            f"The images lie turned against each other, which makes their mean {shrinkage:.1f} % smaller; turn them "
            "alike first."
        )
    atlas.grid = _template_grid(atlas)
    return start


def _start(atlas: _Atlas) -> int:
    """The image asked for, or the one whose extent is nearest to the median of all."""
    if atlas.how.start is not None:
        names = [subject.name for subject in atlas.subjects]
        if atlas.how.start not in names:
            raise InputError(
                f"--start {atlas.how.start} is none of the images; their names are {', '.join(names[:20])}."
            )
        return names.index(atlas.how.start)
    extents = np.log([np.ptp(known.grid.corners(), axis=0) for known in atlas.facts if known.grid is not None])
    return int(np.linalg.norm(extents - np.median(extents, 0), axis=1).argmin())


def _template_grid(atlas: _Atlas) -> Grid:
    """The box of what enough images show, in the frame of their mean."""
    grids = [known.grid for known in atlas.facts if known.grid is not None]
    usual = float(np.median([np.cbrt(np.prod(grid.spacing)) for grid in grids]))
    spacing = atlas.how.spacing or usual
    corners = [affine.inverse().map_points(grid.corners()) for affine, grid in zip(atlas.affines, grids, strict=True)]
    coarse = Grid.covering(np.concatenate(corners), 4 * spacing)
    points = coarse.voxel_centers(dtype=torch.float64).reshape(-1, 3).numpy()
    count = np.zeros(len(points), int)
    for affine, grid in zip(atlas.affines, grids, strict=True):
        count += grid.contains(affine.map_points(points))
    seen = points[count >= atlas.least]
    if not len(seen):
        raise InputError("The images have no place in common after their alignment; check that they show the same.")
    return Grid.covering(seen, spacing, margin_mm=2 * spacing)


def _first_mean(atlas: _Atlas) -> Mean:
    """The template before the first round: all images by their linear maps."""
    assert atlas.grid is not None
    jobs = atlas.jobs(atlas.grid)
    atlas.spread(pulled, jobs, atlas.progress, "mean")
    _leave_out_blanks(atlas, jobs)
    return _mean(atlas, jobs)


def _leave_out_blanks(atlas: _Atlas, jobs: Sequence[Job]) -> None:
    """What a mask or a defacing blanked out of an image was not seen by it; where a body belongs, the images tell."""
    assert atlas.grid is not None
    shown = sum(np.load(job.file("body")).astype(np.int32) for job in jobs)
    bodies = (shown >= atlas.least).astype(np.uint8)
    if bodies.any():
        write_volume(_volume(bodies, atlas.grid, sitk.sitkUInt8), bodies_path(atlas.scratch))
        atlas.spread(without_blanks, jobs, atlas.progress, "mean")


def _mean(atlas: _Atlas, jobs: Sequence[Job], where: np.ndarray | None = None) -> Mean:
    """Average what the jobs have pulled, and make it the template."""
    assert atlas.grid is not None
    pairs = ((np.load(job.file("image")), _counted(job)) for job in jobs)
    mean = averaged(pairs, atlas.grid, atlas.least, atlas.background, where)
    write_volume(_volume(mean.mean, atlas.grid, sitk.sitkFloat32), template_path(atlas.scratch))
    if any(job.subject.mask for job in jobs):
        write_volume(_volume(_mean_mask(jobs), atlas.grid, sitk.sitkUInt8), mask_path(atlas.scratch))
    return mean


def _counted(job: Job) -> np.ndarray:
    """Where an image has data that counts."""
    seen = np.load(job.file("seen"))
    return seen * np.load(job.file("mask")) if job.subject.mask else seen


def _mean_mask(jobs: Sequence[Job]) -> np.ndarray:
    """uint8: marked by at least half of the masks that saw a voxel."""
    marked = np.zeros(jobs[0].template_grid.shape, int)
    seen = np.zeros_like(marked)
    for job in jobs:
        if job.subject.mask:
            known = np.load(job.file("seen"))
            marked += np.load(job.file("mask")) * known
            seen += known
    return ((2 * marked >= seen) & (seen > 0)).astype(np.uint8)


def _volume(array: np.ndarray, grid: Grid, pixel_id: int) -> Volume:
    return Volume(torch.from_numpy(array)[None, None], grid, pixel_id)


def _round(atlas: _Atlas, number: int, before: Mean) -> Mean:
    """All images to the template; the mean displacement taken out; the next template."""
    assert atlas.grid is not None
    jobs = [replace(job, last=number == atlas.how.iterations - 1) for job in atlas.jobs(atlas.grid)]
    name = f"round {number + 1}"
    mean_path(atlas.scratch).unlink(missing_ok=True)
    atlas.found = atlas.spread(registered, jobs, atlas.progress, name)
    shift = mean_displacement([job.file("field") for job in jobs], atlas.affines, jobs[0].field_grid)
    np.save(mean_path(atlas.scratch), shift.inverse().tensor.numpy())
    atlas.spread(pulled, jobs, atlas.progress, "mean")
    _leave_out_blanks(atlas, jobs)
    mean = _mean(atlas, jobs)
    body = _body(atlas)
    changed = np.abs(mean.mean - before.mean)[(mean.coverage >= atlas.least) & (before.coverage >= atlas.least)]
    sizes = np.linalg.norm(shift.map_points(body) - body, axis=1)
    atlas.rounds.append({"mean_displacement_removed_mm": summary(sizes), "template_changed_by": float(changed.mean())})
    return mean


def _body(atlas: _Atlas) -> np.ndarray:
    """(N, 3) LPS mm: points all over the template's body; all over the template where no body is found."""
    from ..io.images import read_mask, read_volume

    template = read_volume(template_path(atlas.scratch))
    try:
        own = mask_path(atlas.scratch)
        points = (read_mask(own) if own.is_file() else body_mask(template)).points()
    except InputError:
        points = template.grid.canonical(8.0).voxel_centers(dtype=torch.float64).reshape(-1, 3).numpy()
    return points[:: max(1, len(points) // _POINTS)]


def _finish(atlas: _Atlas, folder: Path) -> dict[str, Any]:
    """Maps, mean, spread, coverage, labels and mask into ``folder``; returns the figures measured on the way."""
    assert atlas.grid is not None
    jobs = atlas.jobs(atlas.grid)
    body = _body(atlas)
    places = atlas.spread(finished, [Last(job, folder, body) for job in jobs], atlas.progress, "maps")
    _leave_out_blanks(atlas, jobs)
    drift = np.linalg.norm(np.mean(places, 0) - body, axis=1)
    inside = np.zeros(atlas.grid.shape, bool)
    voxels = np.round(atlas.grid.points_to_voxels(body)).astype(int)
    voxels = voxels[((voxels >= 0) & (voxels < atlas.grid.size)).all(1)]
    inside[voxels[:, 2], voxels[:, 1], voxels[:, 0]] = True
    mean = _mean(atlas, jobs, inside)
    for name, array, pixel_id in (
        ("template", mean.mean, sitk.sitkFloat32),
        ("std", mean.deviation, sitk.sitkFloat32),
        ("coverage", mean.coverage.astype(np.int32), sitk.sitkUInt16),
    ):
        write_volume(_volume(array, atlas.grid, pixel_id), folder / f"{name}.nii.gz")
    if mask_path(atlas.scratch).is_file():
        mask_path(atlas.scratch).replace(folder / "mask.nii.gz")
    labeled = [job for job in jobs if job.subject.labels]
    if labeled:
        _write_labels(labeled, atlas.grid, folder)
    return {
        "mean_displacement_mm": {**summary(drift), "points": len(body)},
        "sharpness_per_mm": {
            "template": gradient_magnitude(mean.mean, atlas.grid, inside & (mean.coverage >= atlas.least)),
            "images": float(mean.sharpness.mean()),
        },
        "coverage": {"least": atlas.least, "seen_by_all_percent": 100 * float((mean.coverage == len(jobs)).mean())},
    }


def _write_labels(jobs: Sequence[Job], grid: Grid, folder: Path) -> None:
    least = max(1, math.ceil(_LEAST * len(jobs)))
    voted = majority(
        [np.load(job.file("labels"), mmap_mode="r") for job in jobs],
        [np.load(job.file("seen"), mmap_mode="r") for job in jobs],
        least,
    )
    pixel_id = sitk.sitkUInt16 if voted.max() < 2**16 else sitk.sitkInt64
    write_volume(_volume(voted.astype(np.int64), grid, pixel_id), folder / "labels.nii.gz")


def _document(atlas: _Atlas, start: Subject, figures: dict[str, Any]) -> dict[str, Any]:
    """What atlas.json holds."""
    images = []
    for subject, known, affine, found in zip(atlas.subjects, atlas.facts, atlas.affines, atlas.found, strict=True):
        assert known.grid is not None
        image: dict[str, Any] = {
            "name": subject.name,
            "path": subject.image,
            "frame": subject.frame,
            "mask": subject.mask,
            "labels": subject.labels,
            "sha256": known.sha256,
            **known.grid.describe(),
            "affine": {"matrix": affine.matrix, "translation": affine.translation},
        }
        image |= {"verdict": found.verdict, "expected_error_mm": found.expected_error_mm, "warnings": found.warnings}
        if found.verdict == DO_NOT_USE:
            atlas.warnings.append(
                f"{subject.name} could not be registered to the template ({DO_NOT_USE}); look at it, and leave it out "
                "if it shows something else."
            )
        images.append(image)
    return {
        "version": __version__,
        "date": utc_now(),
        "environment": environment(),
        "preset": atlas.how.settings.name,
        "settings": atlas.how.settings,
        "options": {"iterations": atlas.how.iterations, "spacing": atlas.how.spacing, **atlas.how.options},
        "started_from": start.name,
        "images": images,
        "rounds": atlas.rounds,
        **figures,
        "peak_memory_mib": peak_memory_mib(),
        "warnings": list(dict.fromkeys(atlas.warnings)),
    }
