"""register(): the stages of a registration in order, a file each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from . import __version__, metrics
from .affine_stage import Pair, Run, align
from .anatomy.body import body_mask
from .anatomy.missing import missing_part
from .deform.adam import optimize
from .deform.consistency import inverse_consistent
from .deform.diffusion import descend
from .deform.folding import without_folds
from .deform.protect import RESIDUAL_MM, protect
from .deform.pyramid import run_pyramid
from .deform.scene import Extractor, Scene, View, described
from .descriptors import Extractors, describable
from .device import chosen_device, cpu_has_bfloat16, device_name, or_on_cpu
from .errors import InputError
from .memory import peak_memory_mib
from .progress import Clock, Progress, null_progress, stage
from .report import build_report
from .settings.presets import get_settings
from .settings.registration import Settings, with_overrides
from .settings.strength import MODES, adjusted
from .space.field import DisplacementField
from .space.filters import dilated
from .space.grid import Grid
from .space.intensity import normalized_intensity
from .space.transforms import Transform
from .space.volume import Volume, average_to, check_volume, resample
from .tiers import fitting
from .weights.models import family_of

# Around the body: the skin's neighborhood tells where the body ends.
_MARGIN_MM = 8.0
_FADE_MM = 40.0
# Below this share of the body seen in both images the user is warned.
_LITTLE_OVERLAP_PERCENT = 50.0


@dataclass(frozen=True)
class RegistrationResult:
    """What :func:`register` returns.

    Attributes:
        fixed_to_moving: maps fixed points to moving points, LPS mm; pulls the moving image onto the fixed grid.
        moving_to_fixed: its inverse; carries moving points to the fixed image.
        report: the dictionary of ``report.json``.
        jacobian: determinant of the deformation (without the affine part) on the field's grid.
    """

    fixed_to_moving: Transform
    moving_to_fixed: Transform
    report: dict
    jacobian: Volume | None = None


def register(
    fixed: Volume,
    moving: Volume,
    *,
    preset: str | Settings = "ct-inter-patient",
    strength: str = "normal",
    affine: str | None = None,
    refine: str | None = None,
    features: str | None = None,
    symmetric: bool | None = None,
    initial_transform: Transform | None = None,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    protect_mask: Volume | None = None,
    protect_mode: str = "rigid",
    fixed_labels: Volume | None = None,
    moving_labels: Volume | None = None,
    fixed_points: np.ndarray | None = None,
    moving_points: np.ndarray | None = None,
    device: str = "auto",
    threads: int | None = None,
    max_memory_gib: float | None = None,
    seed: int = 0,
    weights: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> RegistrationResult:
    """Register ``moving`` to ``fixed``.

    Args:
        preset: a name of ``samconvex presets`` or your own Settings.
        strength: "stiff", "normal" or "flexible": factors on the preset's numbers, see
            :func:`samconvex.settings.strength.adjusted`.
        affine, refine, features: override the preset ("none", "moments", "sam"; "none", "adam", "diffusion"; "mind",
            "sam+mind").
        symmetric: solve both directions and let them meet halfway: exchanging the images gives the inverse transform.
            Takes twice the time.
        initial_transform: maps fixed points to moving points; the affine stage then runs only if ``affine`` is given.
        fixed_mask, moving_mask: only nonzero voxels count; on any grid.
        protect_mask: bodies of the fixed image that must not be deformed, such as bone or a lesion; every connected
            part of every label is one, see :func:`samconvex.deform.protect.protect`.
        protect_mode: "rigid" or "volume" (shape may change, volume not).
        fixed_labels, moving_labels: label maps on any grid; their overlap goes into the report.
        fixed_points, moving_points: corresponding (N, 3) LPS mm; their distances go into the report.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None leaves torch's setting.
        max_memory_gib: what the process may hold; None is what is free. Where the forecast is larger, smaller settings
            are chosen and a warning says so, see :mod:`samconvex.tiers`.
        seed: of everything random.
        weights: of one network, by name or file, instead of the shipped ones; the other networks keep theirs.
        progress: see :mod:`samconvex.progress`.

    Raises:
        InputError: unusable input, or images that do not overlap. Cancelled: by ``progress``. ResourceError: memory,
            device.
    """
    start = time.perf_counter()
    progress = progress or null_progress
    settings = with_overrides(get_settings(preset), affine=affine, refine=refine, symmetric=symmetric)
    settings = adjusted(settings, strength)
    if features is not None:
        names = tuple(features.split("+"))
        levels = tuple(replace(level, features=names, weights=()) for level in settings.levels)
        settings = replace(settings, levels=levels)
    if initial_transform is not None and affine is None:
        settings = replace(settings, affine="none")
    if settings.refine not in ("none", "adam", "diffusion"):
        raise InputError(f"There is no refinement {settings.refine!r}; choose none, adam or diffusion.")
    if protect_mode not in MODES:
        raise InputError(f"There is no protection {protect_mode!r}; choose one of: {', '.join(MODES)}.")
    check_volume(fixed)
    check_volume(moving)
    chosen = chosen_device(device)
    settings, taken, shortage = fitting(settings, fixed, moving, max_memory_gib)
    if threads is not None:
        torch.set_num_threads(max(1, threads))
    torch.manual_seed(seed)
    warnings = [*fixed.notes, *moving.notes, *_unused(weights, settings), *([shortage] if shortage else [])]
    clock = Clock()

    progress("prepare", 0.0, shortage or "")
    with clock("prepare"):
        fixed_work = average_to(fixed, settings.working_spacing)
        moving_work = average_to(moving, settings.working_spacing)
        progress("prepare", 0.4)
        fixed_body = _mask_or_body(fixed_work, fixed_mask)
    with clock("affine"):
        (initial, affine_details), chosen = or_on_cpu(
            lambda device: align(
                Pair(fixed_work, moving_work, fixed_mask, moving_mask),
                initial_transform or Transform(),
                Run(settings, device, seed, weights, progress, warnings),
            ),
            chosen,
            warnings,
        )
    _check_overlap(fixed, moving, initial, fixed_body)

    settings = describable(settings, fixed_work, moving_work, weights, warnings)
    moving_body = None
    regions: list[tuple[Volume | None, Volume | None]] = []
    if settings.levels:
        with clock("prepare"):
            moving_body = _moving_body(moving_work, moving_mask, needed=settings.symmetric)
            regions = _regions(
                (fixed_work, moving_work), (fixed_body, moving_body), (fixed_mask, moving_mask), initial, warnings
            )

    def solve(device: torch.device) -> list[DisplacementField]:
        """The field, and in a symmetric registration that of the exchanged images."""
        sides = [_to(_normalized(work), device) for work in (fixed_work, moving_work)]
        weights_of, data_of = (
            [None if mask is None else _to(mask, device) for mask in masks] for masks in zip(*regions, strict=True)
        )
        scene = Scene(
            fixed=sides[0],
            moving=sides[1],
            initial=initial,
            box=_box(fixed_body),
            fixed_mask=weights_of[0],
            moving_mask=data_of[1],
            strict=moving_mask is not None,
            memory_budget=_budget(max_memory_gib),
            dtype=torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32,
        )
        ways = [(scene, (fixed_work, moving_work))]
        if settings.symmetric and moving_body is not None:
            exchanged = replace(
                scene,
                fixed=sides[1],
                moving=sides[0],
                initial=initial.inverse(),
                box=_box(moving_body),
                fixed_mask=weights_of[1],
                moving_mask=data_of[0],
                strict=fixed_mask is not None,
            )
            ways.append((exchanged, (moving_work, fixed_work)))
        found = []
        for number, (way, works) in enumerate(ways):
            share = _share_of(progress, number, len(ways))
            extractor = Extractors(way, *works, weights, settings.levels[-1].spacing, device, share)
            with clock("convex"):
                field = run_pyramid(
                    way,
                    extractor,
                    settings.levels,
                    coupling=settings.coupling,
                    box_passes=settings.box_passes,
                    forget=extractor.forget,
                    progress=share,
                )
            if settings.refine != "none":
                with clock("refine"):
                    field = _refine(way, extractor, settings, field, stage(share, "refine"))
            found.append(DisplacementField(field.tensor.cpu(), field.grid))
        return found

    solved: list[DisplacementField] = []
    if settings.levels:
        solved, chosen = or_on_cpu(solve, chosen, warnings)
    with clock("finish"):
        deformation = _final_field(fixed, moving, initial, solved, settings, protect_mask is not None)
        progress("finish", 0.3)
        protected: list[dict] = []
        if deformation is not None and protect_mask is not None:
            deformation, protected = protect(
                deformation, initial, protect_mask, protect_mode, stage(progress, "finish", 0.3, 0.5)
            )
            warnings += _protection_warnings(protected)
        forward, backward = _both_ways(initial, deformation, settings, stage(progress, "finish", 0.5))
        jacobian = None if deformation is None else Volume(deformation.jacobian_determinant(), deformation.grid)

    with clock("measure"):
        measured = measure(
            fixed,
            moving,
            initial_transform or Transform(),
            forward,
            backward,
            jacobian,
            fixed_body,
            fixed_labels,
            moving_labels,
            fixed_points,
            moving_points,
            warnings,
            stage(progress, "measure"),
        )
    report = build_report(
        version=__version__,
        preset=settings.name,
        settings=settings,
        fixed=fixed,
        moving=moving,
        device=device_name(chosen),
        threads=torch.get_num_threads(),
        total_seconds=time.perf_counter() - start,
        stage_seconds=clock.seconds,
        peak_memory_mib=peak_memory_mib(),
        warnings=warnings,
        further={
            "strength": strength,
            "tier": taken,
            **({"affine": affine_details} if affine_details else {}),
            **({"protected": {"mode": protect_mode, "bodies": protected}} if protected else {}),
        },
        **measured,
    )
    progress("done", 1.0)
    return RegistrationResult(forward, backward, report, jacobian)


def _to(volume: Volume, device: torch.device) -> Volume:
    return volume.with_tensor(volume.tensor.to(device))


def _normalized(volume: Volume) -> Volume:
    """Intensities in [0, 1]; networks with an input for each modality still learn which it was."""
    return replace(volume, tensor=normalized_intensity(volume), known_modality=volume.modality)


def _share_of(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of ``count`` runs through the same stages."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, (number + fraction) / count, message)

    return report


def _unused(weights: str | os.PathLike | None, settings: Settings) -> list[str]:
    """A warning if the given weights are of a network that has no part in this registration."""
    if weights is None:
        return []
    network_of = {"dns": "masr"}
    used = {network_of.get(name, name.partition("-")[0]) for level in settings.levels for name in level.features}
    if settings.affine == "sam":
        used.add("sam")
    family = family_of(weights)
    return [] if family in used else [f"The {family} weights {weights} were not used: nothing here runs that network."]


def _budget(limit_gib: float | None) -> int:
    """Bytes that a level's costs may occupy."""
    return int(min(1.0, 0.35 * (limit_gib or 4.0)) * 2**30)


def _mask_or_body(volume: Volume, mask: Volume | None) -> Volume:
    """What to register: the user's mask, or the body, on a 4 mm identity-direction grid."""
    if mask is None:
        return body_mask(volume)
    coarse = resample(mask.with_tensor((mask.tensor != 0).float()), mask.grid.canonical(4.0), fill=0.0)
    found = (coarse.tensor > 0.25).to(torch.uint8)
    if not bool(found.any()):
        raise InputError(f"{mask.name} marks nothing; give a mask with voxels above 0.")
    if not bool(volume.grid.contains(coarse.grid.voxels_to_points(found[0, 0].nonzero().flip(1).numpy())).any()):
        raise InputError(f"{mask.name} lies outside {volume.name}; give a mask made on that image.")
    return coarse.with_tensor(found)


def _dilated(mask: Volume) -> Volume:
    reach = int(_MARGIN_MM / mask.grid.spacing[0])
    return mask.with_tensor(dilated(mask.tensor > 0, reach).float())


def _moving_body(moving: Volume, mask: Volume | None, *, needed: bool) -> Volume | None:
    """As :func:`_mask_or_body`; None where no body is found and none is ``needed``."""
    try:
        return _mask_or_body(moving, mask)
    except InputError:
        if needed or mask is not None:
            raise
    return None


def _regions(
    images: Sequence[Volume],
    bodies: Sequence[Volume | None],
    masks: Sequence[Volume | None],
    initial: Transform,
    warnings: list[str],
) -> list[tuple[Volume | None, Volume | None]]:
    """For each image what of it is to be matched (None: no body was found), and where it has data (None: everywhere).

    A mask says both. Without one, what was blanked out of an image is no data, and its edge is not matched.
    """
    regions: list[tuple[Volume | None, Volume | None]] = []
    ways = (initial.inverse(), initial)  # from the other image's points to this one's
    for number, (image, body, mask) in enumerate(zip(images, bodies, masks, strict=True)):
        if body is None:
            regions.append((None, None))
            continue
        matched = _dilated(body)
        if mask is not None:
            regions.append((matched, matched))
            continue
        other, to_image = bodies[1 - number], ways[number]
        missing = None if other is None else missing_part(image, body, other, to_image)
        if missing is None:
            regions.append((matched, None))
            continue
        volume = float(missing.tensor.sum()) * float(np.prod(missing.grid.spacing)) / 1e3
        warnings.append(
            f"{image.name} is blank over {volume:.0f} ml of what {images[1 - number].name} shows of the body; nothing "
            "was matched there."
        )
        back = ways[1 - number]
        edge = dilated(back.warp_labels(missing, matched.grid).tensor > 0, 1)
        blank = back.warp_labels(missing, image.grid.canonical(body.grid.spacing))
        regions.append((matched.with_tensor(matched.tensor * ~edge), blank.with_tensor((blank.tensor == 0).float())))
    return regions


def _box(mask: Volume) -> np.ndarray:
    """(2, 3) opposite corners of the mask's bounding box with margin, LPS mm."""
    voxels = mask.tensor[0, 0].nonzero().flip(1).cpu().numpy()
    ends = mask.grid.voxels_to_points(np.stack([voxels.min(0) - 0.5, voxels.max(0) + 0.5]))
    return np.stack([ends.min(0) - _MARGIN_MM, ends.max(0) + _MARGIN_MM])


def _check_overlap(fixed: Volume, moving: Volume, initial: Transform, body: Volume) -> None:
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    inside = fixed.grid.contains(points)
    share = float(moving.grid.contains(initial.map_points(points[inside])).mean()) if inside.any() else 0.0
    if share < 0.01:
        raise InputError(
            f"{moving.name} does not overlap {fixed.name} after alignment; check that both show the same body part, or "
            "give an initial transform or --affine moments."
        )


def _refine(
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


def _final_field(
    fixed: Volume, moving: Volume, initial: Transform, solved: list[DisplacementField], settings: Settings, needed: bool
) -> DisplacementField | None:
    """The field on its final grid, free of folds; without a deformation None, or zeros if it is ``needed``.

    Args:
        solved: the field, and that of the exchanged images where there is one.
    """
    if not solved:
        grid = Grid.covering(fixed.grid.corners(), settings.field_spacing, margin_mm=2 * settings.field_spacing)
        return DisplacementField.zeros(grid) if needed else None
    deformation = _embedded(solved[0], fixed, settings)
    if len(solved) == 2:
        deformation = inverse_consistent(deformation, _embedded(solved[1], moving, settings), initial)
    return without_folds(deformation) if settings.fold_free else deformation


def _embedded(field: DisplacementField, image: Volume, settings: Settings) -> DisplacementField:
    """On a grid that covers the image too, fading out to zero at the border."""
    corners = np.concatenate([image.grid.corners(), field.grid.corners()])
    grid = Grid.covering(corners, settings.field_spacing, margin_mm=2 * settings.field_spacing)
    return field.embedded(grid, _FADE_MM)


def _both_ways(
    initial: Transform, deformation: DisplacementField | None, settings: Settings, report: Callable[[float], None]
) -> tuple[Transform, Transform]:
    """The map and its inverse; in a symmetric registration the inverse has half the field's spacing."""
    if deformation is None:
        return initial, initial.inverse()
    grid = deformation.grid.subdivided(2) if settings.symmetric else None
    inverse = deformation.inverse(grid=grid, report=report)
    return Transform((deformation, *initial.parts)), Transform((*initial.inverse().parts, inverse))


def _protection_warnings(bodies: list[dict]) -> list[str]:
    loose = sorted({body["label"] for body in bodies if body["residual_mm"] > RESIDUAL_MM})
    if not loose:
        return []
    worst = max(body["residual_mm"] for body in bodies)
    return [
        f"Protected label {', '.join(map(str, loose))} could not be kept exactly (up to {worst:.1f} mm off): bodies "
        "lie too close together or would fold the tissue between them; protect fewer, or outline them apart."
    ]


def _overlap_percent(fixed: Volume, moving: Volume, forward: Transform, body: Volume) -> float:
    """Share of the fixed image's body (or mask) where the moving image has data."""
    points = body.grid.voxels_to_points(body.tensor[0, 0].nonzero().flip(1).numpy())
    points = points[fixed.grid.contains(points)]
    points = points[:: max(1, len(points) // 50_000)]
    return 100.0 * float(forward.reaches(moving, points).mean()) if len(points) else 0.0


def measure(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    forward: Transform,
    backward: Transform,
    jacobian: Volume | None,
    body: Volume,
    fixed_labels: Volume | None,
    moving_labels: Volume | None,
    fixed_points: np.ndarray | None,
    moving_points: np.ndarray | None,
    warnings: list[str],
    report: Callable[[float], None],
) -> dict:
    """The report's figures of quality."""
    voxels = body.tensor[0, 0].nonzero().flip(1).numpy()
    sampled = body.grid.voxels_to_points(voxels[:: max(1, len(voxels) // 5000)])
    measured: dict = {"inverse_consistency_mm": metrics.inverse_consistency(forward, backward, sampled)}
    overlap = _overlap_percent(fixed, moving, forward, body)
    measured["overlap_percent"] = overlap
    if overlap < _LITTLE_OVERLAP_PERCENT:
        warnings.append(
            f"{moving.name} shows only {overlap:.0f} % of what {fixed.name} shows of the body; beyond the overlap the "
            "warped image is background and the transform a smooth continuation."
        )
    if jacobian is None:
        measured["regularity"] = {"folding_percent": 0.0, "sdlogj": 0.0, "sdlogj_learn2reg": 0.0}
    else:
        inside = resample(body, jacobian.grid, mode="nearest").tensor > 0
        measured["regularity"] = metrics.regularity_of(jacobian.tensor, inside)
    report(0.3)
    if fixed_labels is not None and moving_labels is not None:
        for labels, image in ((fixed_labels, fixed), (moving_labels, moving)):
            if labels.grid != image.grid:
                warnings.append(f"{labels.name} is on another grid than {image.name}; it was resampled by position.")
        reference = resample(fixed_labels, fixed.grid, mode="nearest")
        common = metrics.common_labels(reference, moving_labels)
        if not common:
            warnings.append(f"{fixed_labels.name} and {moving_labels.name} share no label; no overlap was measured.")
        for name, transform in (("dice_initial", start), ("dice_final", forward)):
            scores = metrics.dice(reference, transform.warp_labels(moving_labels, fixed.grid))
            measured[name] = {label: scores.get(label, 0.0) for label in common}
            report(0.7 if name == "dice_initial" else 0.95)
    if fixed_points is not None and moving_points is not None:
        if len(fixed_points) != len(moving_points):
            raise InputError(
                f"{len(fixed_points)} fixed points but {len(moving_points)} moving points; they must correspond."
            )
        measured["tre_initial_mm"] = metrics.target_registration_error(start, fixed_points, moving_points)
        measured["tre_final_mm"] = metrics.target_registration_error(forward, fixed_points, moving_points)
    for points, image in ((fixed_points, fixed), (moving_points, moving)):
        if points is not None and len(points):
            outside = int((~image.grid.contains(points)).sum())
            if outside:
                warnings.append(f"{outside} of {len(points)} points lie outside {image.name}.")
    return measured
