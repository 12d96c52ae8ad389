"""Before anything is computed: arguments checked, settings that fit the memory, images at the working spacing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..device import chosen_device
from ..errors import InputError
from ..io.checks import grid_note, labels_note, outside_note
from ..memory import machine_memory_gib
from ..progress import Progress
from ..report.environment import environment, utc_now
from ..space.filling import as_air
from ..space.grid import as_points
from ..space.volume import Volume, average_to, check_shape
from ..weights.models import load_feed_forward
from .options import Options, unused_weights, weights_used
from .pair import Pair
from .regions import filling_note, mask_or_body
from .run import Run
from .tiers import fitting


@dataclass(frozen=True)
class Prepared:
    """Both images as they came and as they are worked on.

    Attributes:
        fixed, moving: as given.
        work: both averaged to about the working spacing, with their masks.
        fixed_body: what to register (the mask, or the body), on a 4 mm grid.
    """

    fixed: Volume
    moving: Volume
    work: Pair
    fixed_body: Volume


def begun(fixed: Volume, moving: Volume, options: Options, progress: Progress) -> tuple[Run, dict]:
    """The run with its settings, and what the report says of them.

    Raises:
        InputError: a choice that does not exist, unusable images, masks, labels, points or start.
        ResourceError: memory, device.
    """
    settings = options.settings()
    options = _checked(options)
    notes = _truth_notes(fixed, moving, options)
    device = chosen_device(options.device)
    settings, tier, shortage = fitting(settings, fixed, moving, _memory_limit(options))
    torch.manual_seed(options.seed)
    warnings = [*fixed.notes, *moving.notes, *unused_weights(options.weights, settings), *notes]
    if shortage:
        warnings.append(shortage)
    progress("prepare", 0.0, shortage or "")
    # Before anything is computed: what the affine needs is known now, what the levels need may shrink later.
    details = {
        "date": utc_now(),
        "strength": options.strength,
        "tier": tier,
        "seed": options.seed,
        "reproducible": options.reproducible,
        "weights": weights_used(options.weights, settings),
        "environment": environment(),
    }
    return Run(options, settings, device, progress, warnings), details


def _memory_limit(options: Options) -> float | None:
    """What may be held, GiB; what happens to be free now must not decide a reproducible result."""
    return machine_memory_gib() if options.reproducible and options.max_memory_gib is None else options.max_memory_gib


def prepared(fixed: Volume, moving: Volume, run: Run) -> Prepared:
    """Both images at the working spacing, and the fixed body."""
    options = run.options
    with run.clock("prepare"):
        fixed_work, moving_work = (average_to(as_air(image), run.settings.working_spacing) for image in (fixed, moving))
        run.warnings += [note for note in map(filling_note, (fixed, moving)) if note]
        run.progress("prepare", 0.4)
        body = mask_or_body(fixed_work, options.fixed_mask)
    return Prepared(fixed, moving, Pair(fixed_work, moving_work, options.fixed_mask, options.moving_mask), body)


def _checked(options: Options) -> Options:
    """The options with their points as (N, 3).

    Raises:
        InputError: a mask or label map that is no volume, points that cannot be compared row by row, a mirrored start,
            weights of a network that predicts no field.
    """
    for further in (
        options.fixed_mask,
        options.moving_mask,
        options.protect_mask,
        options.fixed_labels,
        options.moving_labels,
    ):
        if further is not None:
            check_shape(further)
    if options.initial_network is not None:
        load_feed_forward(options.initial_network)
    if options.start.mirrors:
        raise InputError(
            "The initial transform mirrors the patient (its determinant is negative); correct the sign of one axis."
        )
    fixed, moving = (
        None if points is None else as_points(points, finite=True)
        for points in (options.fixed_points, options.moving_points)
    )
    if fixed is not None and moving is not None and len(fixed) != len(moving):
        raise InputError(f"{len(fixed)} fixed points but {len(moving)} moving points; they must correspond.")
    return replace(options, fixed_points=fixed, moving_points=moving)


_IMAGE_WANTED = "give the image itself here, and the label map as --fixed-labels or --moving-labels"


def _truth_notes(fixed: Volume, moving: Volume, options: Options) -> list[str]:
    """What to say of images that seem to be labels, and of labels and points that do not quite fit their images."""
    notes: list[str | None] = [labels_note(image, _IMAGE_WANTED) for image in (fixed, moving)]
    if options.fixed_labels is not None and options.moving_labels is not None:
        notes += [grid_note(options.fixed_labels, fixed), grid_note(options.moving_labels, moving)]
    for points, image in zip((options.fixed_points, options.moving_points), (fixed, moving), strict=True):
        if points is not None:
            notes.append(outside_note(points, image.grid, image.name))
    return [note for note in notes if note]
