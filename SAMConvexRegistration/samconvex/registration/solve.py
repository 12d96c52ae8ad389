"""From the features of a pair to a field: the pyramid and the refinement, in one direction or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ..align.coarse_field import sam_coarse
from ..anatomy.cache import embed_cached
from ..deform.adam import optimize
from ..deform.diffusion import descend, descend_anew, quadratic_spline
from ..deform.feed_forward import predicted
from ..deform.pyramid import run_pyramid
from ..deform.scene import Extractor, Scene, View, described
from ..device import cpu_has_bfloat16
from ..errors import InputError
from ..progress import Progress, stage
from ..settings.presets import PRESETS
from ..settings.registration import AdamSettings, DiffusionSettings, Settings
from ..space.field import DisplacementField
from ..space.grid import Grid
from ..space.intensity import normalized_intensity
from ..space.transforms import Transform
from ..space.volume import Volume
from ..weights.models import load_feed_forward, load_sam, weights_for
from .features import Extractors, not_for, turn_of
from .pair import Pair
from .prepare import Prepared
from .regions import Regions, box_of
from .run import Run

# A preset's first step by matched points is taken where this share of them agrees: between heads and necks 0.26 to 0.81
# (7 pairs of training patients), between abdomens 0.02 to 0.21 (7), six of which gained nothing by it (-0.014 to
# 0.015).
SURE = 0.2


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
    extractor = Extractors(scene, pair.fixed, pair.moving, run.options.weights, settings.finest, device, progress)
    field = _coarse(scene, pair, run, device, progress) if settings.coarse == "sam" else None
    if settings.initial_network:
        with run.clock("network"):
            network = load_feed_forward(settings.initial_network).to(device)
            field = predicted(network, scene, extractor, stage(progress, "network"), field)  # type: ignore[arg-type]
    if settings.levels:
        with run.clock("convex"):
            field = run_pyramid(
                scene,
                extractor,
                settings.levels,
                start=field,
                coupling=settings.coupling,
                couplings=settings.couplings,
                box_passes=settings.box_passes,
                forget=extractor.forget,
                progress=progress,
            )
    steps = settings.refinements
    if field is None:  # the refinement is all there is
        field = DisplacementField.zeros(Grid.covering(scene.box, settings.finest), device)
    for number, step in enumerate(steps):
        part = stage(progress, "refine", number / len(steps), (number + 1) / len(steps))
        with run.clock("refine"):
            field = refined(scene, extractor, settings, step, field, part)
    return field


def _coarse(scene: Scene, pair: Pair, run: Run, device: torch.device, progress: Progress) -> DisplacementField | None:
    """SAM-coarse; None where the embeddings cannot be used, with a warning where it was asked for."""
    preset = PRESETS.get(run.settings.name)
    asked = run.options.coarse == "sam" or preset is None or preset.coarse != "sam"
    model = load_sam(weights_for("sam", run.options.weights))
    field, share = None, 0.0
    other = not_for(model, pair.fixed, pair.moving)
    if other is not None:
        reason = f"{other.name} is no CT in Hounsfield units"
    elif not turn_of(scene.initial, scene.fixed, pair.moving).is_none:
        reason = "one image lies turned"
    else:
        reason = "too few points match"
        with run.clock("coarse"):
            try:
                fixed, moving = (
                    embed_cached(v, model, device=device, progress=progress) for v in (pair.fixed, pair.moving)
                )
            except InputError as error:  # such as a crop without any outline of a body
                reason = str(error)
            else:
                least = 0.0 if asked else SURE
                masks = (pair.fixed_mask, pair.moving_mask)
                report = stage(progress, "coarse")
                field, share = sam_coarse(
                    fixed, moving, scene.initial, scene.box, masks=masks, least_share=least, report=report
                )
    run.coarse = {"taken": field is not None, "share": round(share, 3)}
    if field is None and asked:
        run.warnings.append(f"The first step of the deformation, by matched points, was left out ({reason}).")
    return field


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
    step: AdamSettings | DiffusionSettings,
    deformation: DisplacementField,
    report: Callable[[float], None],
) -> DisplacementField:
    """``deformation`` after one level of the refinement."""
    parts = step.subdivision if isinstance(step, AdamSettings) else 1
    grid = Grid.covering(scene.box, step.spacing)
    dense = grid.subdivided(parts)
    # Displaced samples may leave the box by a few centimeters.
    wide = grid.padded(int(24.0 / step.spacing)).subdivided(parts)
    chosen = (extractor, *settings.refined_by)
    fixed = described(View(scene, "fixed"), *chosen, dense, step.pool)
    # The edge of the moving image is no feature: what lies beyond pulls at nothing.
    weight = scene.weight_on(dense) * scene.valid_on(dense, deformation)
    if isinstance(step, DiffusionSettings) and step.anew:
        finer = grid.subdivided(step.pool)

        def spline(u: torch.Tensor) -> DisplacementField:
            return DisplacementField(quadratic_spline(u, finer.shape), finer)

        def moved(u: torch.Tensor) -> torch.Tensor:
            return described(View(scene, "moving", spline(u)), *chosen, grid, step.pool, spread=False).tensor

        found = descend_anew(deformation, fixed.tensor, moved, weight, step, grid=grid, report=report)
        return spline(found.tensor)
    so_far = deformation.on_grid(wide, fill=None) if isinstance(step, AdamSettings) and step.anew else None
    moving = described(View(scene, "moving", so_far), *chosen, wide, step.pool)
    if isinstance(step, DiffusionSettings):
        return descend(deformation, fixed, moving, weight, step, grid=grid, report=report)
    if so_far is None:
        return optimize(deformation, fixed, moving, weight, step, grid=grid, report=report)
    start = DisplacementField.zeros(grid, scene.device)
    return so_far.after(optimize(start, fixed, moving, weight, step, grid=grid, report=report))
