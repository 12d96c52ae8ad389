"""From the features of a pair to a field: the pyramid and the refinement, in one direction or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..deform.adam import optimize
from ..deform.diffusion import descend
from ..deform.pyramid import run_pyramid
from ..deform.scene import Extractor, Scene, View, described
from ..device import cpu_has_bfloat16
from ..progress import Progress, stage
from ..settings.registration import Settings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.intensity import normalized_intensity
from ..space.transforms import Transform
from ..space.volume import Volume
from .features import Extractors
from .pair import Pair
from .prepare import Prepared
from .regions import Regions, box_of
from .run import Run


def on_device(volume: Volume, device: torch.device) -> Volume:
    return volume.with_tensor(volume.tensor.to(device))


def normalized_volume(volume: Volume) -> Volume:
    """Intensities in [0, 1]; networks with an input for each modality still learn which it was."""
    return replace(volume, tensor=normalized_intensity(volume), known_modality=volume.modality)


def solve(
    run: Run, images: Prepared, initial: Transform, regions: Regions, device: torch.device
) -> list[DisplacementField]:
    """The field, and in a symmetric registration that of the exchanged images."""
    ways = [(scene_of(run, images, initial, regions, device), images.work)]
    if run.settings.symmetric and regions.moving_body is not None:
        ways.append((_exchanged(ways[0][0], run, regions, device), images.work.exchanged()))
    found = []
    for number, (scene, pair) in enumerate(ways):
        field = _one_way(scene, pair, run, share_of(run.progress, number, len(ways)), device)
        found.append(DisplacementField(field.tensor.cpu(), field.grid))
    return found


def scene_of(run: Run, images: Prepared, initial: Transform, regions: Regions, device: torch.device) -> Scene:
    """What is seen of both images, from the fixed image's side."""
    fixed, moving = (on_device(normalized_volume(work), device) for work in (images.work.fixed, images.work.moving))
    return Scene(
        fixed=fixed,
        moving=moving,
        initial=initial,
        box=box_of(images.fixed_body),
        fixed_mask=_there(regions.fixed.matched, device),
        moving_mask=_there(regions.moving.data, device),
        strict=run.options.moving_mask is not None,
        memory_budget=cost_budget(run.options.max_memory_gib),
        dtype=torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32,
    )


def _exchanged(scene: Scene, run: Run, regions: Regions, device: torch.device) -> Scene:
    """The same from the moving image's side."""
    assert regions.moving_body is not None
    return replace(
        scene,
        fixed=scene.moving,
        moving=scene.fixed,
        initial=scene.initial.inverse(),
        box=box_of(regions.moving_body),
        fixed_mask=_there(regions.moving.matched, device),
        moving_mask=_there(regions.fixed.data, device),
        strict=run.options.fixed_mask is not None,
    )


def _one_way(scene: Scene, pair: Pair, run: Run, progress: Progress, device: torch.device) -> DisplacementField:
    settings = run.settings
    extractor = Extractors(
        scene, pair.fixed, pair.moving, run.options.weights, settings.levels[-1].spacing, device, progress
    )
    with run.clock("convex"):
        field = run_pyramid(
            scene,
            extractor,
            settings.levels,
            coupling=settings.coupling,
            box_passes=settings.box_passes,
            forget=extractor.forget,
            progress=progress,
        )
    if settings.refine == "none":
        return field
    with run.clock("refine"):
        return refined(scene, extractor, settings, field, stage(progress, "refine"))


def _there(mask: Volume | None, device: torch.device) -> Volume | None:
    return None if mask is None else on_device(mask, device)


def share_of(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of ``count`` runs through the same stages."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, (number + fraction) / count, message)

    return report


def cost_budget(limit_gib: float | None) -> int:
    """Bytes that a level's costs may occupy."""
    return int(min(1.0, 0.35 * (limit_gib or 4.0)) * 2**30)


def refined(
    scene: Scene,
    extractor: Extractor,
    settings: Settings,
    deformation: DisplacementField,
    report: Callable[[float], None],
) -> DisplacementField:
    adam, diffusion = settings.adam, settings.diffusion
    by_adam = settings.refine == "adam"
    spacing, pool, parts = (
        (adam.spacing, adam.pool, adam.subdivision) if by_adam else (diffusion.spacing, diffusion.pool, 1)
    )
    grid = Grid.covering(scene.box, spacing)
    dense = grid.subdivided(parts)
    # Displaced samples may leave the box by a few centimeters.
    wide = grid.padded(int(24.0 / spacing)).subdivided(parts)
    chosen = (extractor, settings.levels[-1].features, settings.levels[-1].weights)
    fixed = described(View(scene, "fixed"), *chosen, dense, pool)
    moving = described(View(scene, "moving"), *chosen, wide, pool)
    # The edge of the moving image is no feature: what lies beyond pulls at nothing.
    weight = scene.weight_on(dense) * scene.valid_on(dense, deformation)
    if by_adam:
        return optimize(deformation, fixed, moving, weight, adam, grid=grid, report=report)
    return descend(deformation, fixed, moving, weight, diffusion, grid=grid, report=report)
