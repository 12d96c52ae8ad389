"""register(): the stages of a registration in order, a file each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..device import computing, device_name
from ..memory import peak_memory_mib
from ..progress import Progress, null_progress, stage
from ..report.document import build_report
from ..report.verdict import verdict
from ..settings.registration import Settings
from ..space.field import DisplacementField
from ..space.transforms import Transform
from ..space.volume import Volume
from ..version import __version__
from .affine import align
from .evidence import gathered, told
from .expected_error import ExpectedError, error_at, expected_error, of_labels, summarized
from .features import describable
from .finish import Maps, finished
from .magnify import Magnification
from .measure import Truth, measure
from .options import Options
from .prepare import Prepared, begun, prepared
from .regions import Regions, check_overlap, regions_of
from .run import Run
from .shown import shown
from .solve import solve


@dataclass(frozen=True)
class RegistrationResult:
    """What :func:`register` returns.

    Attributes:
        fixed_to_moving: maps fixed points to moving points, LPS mm; pulls the moving image onto the fixed grid.
        moving_to_fixed: its inverse; carries moving points to the fixed image.
        report: the dictionary of ``report.json``.
        jacobian: determinant of the deformation (without the affine part) on the field's grid.
        expected_error: float32 mm on the field's grid in the fixed space; nine of ten errors are below it.
    """

    fixed_to_moving: Transform
    moving_to_fixed: Transform
    report: dict
    jacobian: Volume | None = None
    expected_error: Volume | None = None

    def error_at(self, points: np.ndarray) -> np.ndarray:
        """(N,) mm: the expected error at (N, 3) LPS mm of the fixed space.

        Raises:
            InputError: points of another shape, or not finite. ValueError: this result has no expected error.
        """
        if self.expected_error is None:
            raise ValueError("this result has no expected error")
        return error_at(self.expected_error, points)


def register(
    fixed: Volume,
    moving: Volume,
    *,
    preset: str | Settings = "ct-inter-patient",
    strength: str = "normal",
    quality: str = "standard",
    affine: str | None = None,
    refine: str | None = None,
    features: str | None = None,
    coarse: str | None = None,
    initial_network: str | os.PathLike | None = None,
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
    reproducible: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> RegistrationResult:
    """Register ``moving`` to ``fixed``.

    Args:
        preset: a name of ``samconvex presets`` or your own Settings.
        strength: "stiff", "normal" or "flexible": factors on the preset's numbers, see
            :func:`samconvex.settings.strength.adjusted`.
        quality: "fast", "standard" or "best": time against accuracy, see there.
        affine, refine, features: override the preset ("none", "moments", "sam"; "none", "adam", "diffusion"; "mind",
            "sam+mind").
        coarse: "sam" starts from a coarse field through points matched by embeddings, "none" does not.
        initial_network: weights, by name or file, of a network that predicts a field (LapIRN,
            SAM-VoxelMorph): what follows starts from
            it.
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
            are chosen and a warning says so, see :mod:`samconvex.registration.tiers`.
        seed: of everything random.
        weights: of one network, by name or file, instead of the shipped ones; the other networks keep theirs.
        reproducible: the same bits for any ``threads``, by using one, see :func:`samconvex.device.computing`.
        progress: see :mod:`samconvex.progress`.
        tell: called before the long work with every sentence that a person should hear at once, such as that both
            images have nothing in common; the report's warnings begin with the same.

    Raises:
        InputError: unusable input, or images that do not overlap. Cancelled: by ``progress``. ResourceError: memory,
            device.
    """
    began = time.perf_counter()
    options = Options(
        preset,
        strength,
        quality,
        affine,
        refine,
        features,
        coarse,
        initial_network,
        symmetric,
        initial_transform,
        fixed_mask,
        moving_mask,
        protect_mask,
        protect_mode,
        fixed_labels,
        moving_labels,
        fixed_points,
        moving_points,
        device,
        threads,
        max_memory_gib,
        seed,
        weights,
        reproducible,
    )
    with computing(threads, reproducible):
        return _registered(fixed, moving, options, progress or null_progress, began, tell)


def _registered(
    fixed: Volume,
    moving: Volume,
    options: Options,
    progress: Progress,
    began: float,
    tell: Callable[[str], None] | None,
) -> RegistrationResult:
    """The stages one after the other; ``began`` as time.perf_counter gives it."""
    size = Magnification.of(fixed, moving)
    large = size.volume(fixed), size.volume(moving)
    run, details = begun(*large, size.options(options), progress)
    if size.note:
        run.warnings.append(size.note)
        details["magnification"] = size.factor
    run.tell = tell or run.tell
    images = prepared(*large, run)
    if anatomy := shown(images.work, run):
        details["anatomy"] = anatomy
    initial, regions, maps = _mapped(images, run, details)
    if run.coarse:
        details["coarse"] = run.coarse
    with run.clock("error"):
        expected = run.computed(lambda device: expected_error(run, images, initial, maps.forward, regions, device))
    expected = expected.scaled(1.0 / size.factor)
    evidence = _evidence(images, maps, regions, run)
    maps = size.true_maps(maps, options.start)
    images = size.true_images(images, fixed, moving)
    measured = _measured(images, maps, expected, options, run)
    evidence |= told(images.work, run.settings, details, measured)
    details["verdict"] = verdict(evidence, same_patient=run.settings.same_patient)
    if maps.protected:
        details["protected"] = {"mode": options.protect_mode, "bodies": list(maps.protected)}
    report = _reported(images, run, time.perf_counter() - began, details, measured)
    run.progress("done", 1.0)
    return RegistrationResult(maps.forward, maps.backward, report, maps.jacobian, expected.bound)


def find_map(
    fixed: Volume, moving: Volume, *, progress: Progress | None = None, **options: Any
) -> tuple[Transform, list[str]]:
    """The map alone that :func:`register` finds, fixed to moving points, and the warnings; in half of the time.

    Without expected error, verdict and report: for what is averaged and registered again, as the rounds of an atlas.

    Args:
        options: as :func:`register` takes them.

    Raises:
        As :func:`register`.
    """
    asked = Options(**options)
    with computing(asked.threads, asked.reproducible):
        size = Magnification.of(fixed, moving)
        large = size.volume(fixed), size.volume(moving)
        run, details = begun(*large, size.options(asked), progress or null_progress)
        _, _, maps = _mapped(prepared(*large, run), run, details)
        return size.true_maps(maps, asked.start).forward, run.warnings


def _mapped(images: Prepared, run: Run, details: dict) -> tuple[Transform, Regions, Maps]:
    """The linear part, what of the images is matched, and the finished maps."""
    initial = _aligned(images, run, details)
    solved, regions = _deformed(images, initial, run)
    return initial, regions, finished(images.fixed, images.moving, initial, solved, run)


def _aligned(images: Prepared, run: Run, details: dict) -> Transform:
    """The linear part; how it was found is added to ``details``."""
    with run.clock("affine"):
        initial, how = run.computed(lambda device: align(images.work, run, device))
    if how:
        details["affine"] = how
    check_overlap(images.fixed, images.moving, initial, images.fixed_body)
    return initial


def _deformed(images: Prepared, initial: Transform, run: Run) -> tuple[list[DisplacementField], Regions]:
    """The solved fields, none where the settings end with the linear part; and what of the images is matched."""
    run.settings = describable(run.settings, images.work.fixed, images.work.moving, run.options.weights, run.warnings)
    deforms = run.settings.deforms
    with run.clock("prepare"):
        regions = regions_of(
            images.work,
            images.fixed_body,
            initial,
            run.settings.symmetric and deforms,
            run.warnings if deforms else [],
            (images.fixed, images.moving),
        )
    if not deforms:
        return [], regions
    return run.computed(lambda device: solve(run, images, initial, regions, device)), regions


def _measured(images: Prepared, maps: Maps, expected: ExpectedError, options: Options, run: Run) -> dict:
    truth = Truth(options.fixed_labels, options.moving_labels, options.fixed_points, options.moving_points)
    with run.clock("measure"):
        figures = measure(
            images.fixed,
            images.moving,
            maps,
            images.fixed_body,
            truth,
            run.warnings,
            stage(run.progress, "measure", 0.5, 1.0),
        )
        summary = summarized(expected, images.fixed_body)
        if truth.moving_labels is not None:
            summary["labels"] = of_labels(expected.bound, truth.moving_labels, maps.backward, images.fixed.grid)
        return {**figures, "expected_error_mm": summary}


def _evidence(images: Prepared, maps: Maps, regions: Regions, run: Run) -> dict[str, float]:
    """What the finished maps show, at the size that was worked at."""
    # A mask says what is wanted, not what the image lacks.
    fixed_data = regions.fixed.data if images.work.fixed_mask is None else None
    moving_data = regions.moving.data if images.work.moving_mask is None else None
    with run.clock("verdict"):
        return gathered(
            images.work,
            maps,
            images.fixed_body,
            data=(fixed_data, moving_data),
            same_patient=run.settings.same_patient,
            weights=run.options.weights,
            device=run.device,
            report=stage(run.progress, "measure", 0.0, 0.5),
        )


def _reported(images: Prepared, run: Run, seconds: float, details: dict, measured: dict) -> dict:
    return build_report(
        version=__version__,
        preset=run.settings.name,
        settings=run.settings,
        fixed=images.fixed,
        moving=images.moving,
        device=device_name(run.device),
        threads=torch.get_num_threads(),
        total_seconds=seconds,
        stage_seconds=run.clock.seconds,
        peak_memory_mib=peak_memory_mib(),
        warnings=run.warnings,
        further=details,
        **measured,
    )
