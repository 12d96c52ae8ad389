"""register(): the stages of a registration in order, a file each."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..deform.protect import RESIDUAL_MM, protect
from ..deform.pyramid import run_pyramid
from ..deform.scene import Scene
from ..device import chosen_device, cpu_has_bfloat16, device_name, or_on_cpu
from ..errors import InputError
from ..memory import peak_memory_mib
from ..progress import Clock, Progress, null_progress, stage
from ..report.document import build_report
from ..settings.presets import get_settings
from ..settings.registration import Settings, with_overrides
from ..settings.strength import MODES, adjusted
from ..space.field import DisplacementField
from ..space.grid import as_points
from ..space.transforms import Transform
from ..space.volume import Volume, average_to, check_shape, check_volume
from ..version import __version__
from ..weights.models import family_of
from .affine import Pair, Run, align
from .features import Extractors, describable
from .measure import measure
from .regions import body_of_moving, box_of, check_overlap, mask_or_body, matched_regions
from .solve import both_ways, cost_budget, final_field, normalized_volume, on_device, refined, share_of
from .tiers import fitting


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
            are chosen and a warning says so, see :mod:`samconvex.registration.register.tiers`.
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
    for further in (fixed_mask, moving_mask, protect_mask, fixed_labels, moving_labels):
        if further is not None:
            check_shape(further)
    fixed_points, moving_points = _corresponding(fixed_points, moving_points)
    if initial_transform is not None and initial_transform.mirrors:
        raise InputError(
            "The initial transform mirrors the patient (its determinant is negative); correct the sign of one axis."
        )
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
        fixed_body = mask_or_body(fixed_work, fixed_mask)
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
    check_overlap(fixed, moving, initial, fixed_body)

    settings = describable(settings, fixed_work, moving_work, weights, warnings)
    moving_body = None
    regions: list[tuple[Volume | None, Volume | None]] = []
    if settings.levels:
        with clock("prepare"):
            moving_body = body_of_moving(moving_work, moving_mask, needed=settings.symmetric)
            regions = matched_regions(
                (fixed_work, moving_work), (fixed_body, moving_body), (fixed_mask, moving_mask), initial, warnings
            )

    def solve(device: torch.device) -> list[DisplacementField]:
        """The field, and in a symmetric registration that of the exchanged images."""
        sides = [on_device(normalized_volume(work), device) for work in (fixed_work, moving_work)]
        weights_of, data_of = (
            [None if mask is None else on_device(mask, device) for mask in masks]
            for masks in zip(*regions, strict=True)
        )
        scene = Scene(
            fixed=sides[0],
            moving=sides[1],
            initial=initial,
            box=box_of(fixed_body),
            fixed_mask=weights_of[0],
            moving_mask=data_of[1],
            strict=moving_mask is not None,
            memory_budget=cost_budget(max_memory_gib),
            dtype=torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32,
        )
        ways = [(scene, (fixed_work, moving_work))]
        if settings.symmetric and moving_body is not None:
            exchanged = replace(
                scene,
                fixed=sides[1],
                moving=sides[0],
                initial=initial.inverse(),
                box=box_of(moving_body),
                fixed_mask=weights_of[1],
                moving_mask=data_of[0],
                strict=fixed_mask is not None,
            )
            ways.append((exchanged, (moving_work, fixed_work)))
        found = []
        for number, (way, works) in enumerate(ways):
            share = share_of(progress, number, len(ways))
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
                    field = refined(way, extractor, settings, field, stage(share, "refine"))
            found.append(DisplacementField(field.tensor.cpu(), field.grid))
        return found

    solved: list[DisplacementField] = []
    if settings.levels:
        solved, chosen = or_on_cpu(solve, chosen, warnings)
    with clock("finish"):
        deformation = final_field(fixed, moving, initial, solved, settings, protect_mask is not None)
        progress("finish", 0.3)
        protected: list[dict] = []
        if deformation is not None and protect_mask is not None:
            deformation, protected = protect(
                deformation, initial, protect_mask, protect_mode, stage(progress, "finish", 0.3, 0.5)
            )
            warnings += _protection_warnings(protected)
        forward, backward = both_ways(initial, deformation, settings, stage(progress, "finish", 0.5))
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


def _corresponding(fixed: np.ndarray | None, moving: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Both lists as (N, 3); raises InputError where they cannot be compared row by row."""
    lists = [None if points is None else as_points(points, finite=True) for points in (fixed, moving)]
    if lists[0] is not None and lists[1] is not None and len(lists[0]) != len(lists[1]):
        raise InputError(f"{len(lists[0])} fixed points and {len(lists[1])} moving points do not correspond.")
    return lists[0], lists[1]


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


def _protection_warnings(bodies: list[dict]) -> list[str]:
    loose = sorted({body["label"] for body in bodies if body["residual_mm"] > RESIDUAL_MM})
    if not loose:
        return []
    worst = max(body["residual_mm"] for body in bodies)
    return [
        f"Protected label {', '.join(map(str, loose))} could not be kept exactly (up to {worst:.1f} mm off): bodies "
        "lie too close together or would fold the tissue between them; protect fewer, or outline them apart."
    ]
