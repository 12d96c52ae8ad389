"""Before anything is computed: arguments checked, settings that fit the memory, images at the working spacing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..device import chosen_device
from ..errors import InputError
from ..io.checks import grid_note, outside_note
from ..progress import Progress
from ..space.filling import as_air
from ..space.volume import Volume, average_to, check_volume
from .options import Options, unused_weights
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
        InputError: a choice that does not exist, unusable images, labels or points. ResourceError: memory, device.
    """
    settings = options.settings()
    check_volume(fixed)
    check_volume(moving)
    notes = _truth_notes(fixed, moving, options)
    device = chosen_device(options.device)
    settings, tier, shortage = fitting(settings, fixed, moving, options.max_memory_gib)
    if options.threads is not None:
        torch.set_num_threads(max(1, options.threads))
    torch.manual_seed(options.seed)
    warnings = [*fixed.notes, *moving.notes, *unused_weights(options.weights, settings), *notes]
    if shortage:
        warnings.append(shortage)
    progress("prepare", 0.0, shortage or "")
    return Run(options, settings, device, progress, warnings), {"strength": options.strength, "tier": tier}


def prepared(fixed: Volume, moving: Volume, run: Run) -> Prepared:
    """Both images at the working spacing, and the fixed body."""
    options = run.options
    with run.clock("prepare"):
        fixed_work, moving_work = (average_to(as_air(image), run.settings.working_spacing) for image in (fixed, moving))
        run.warnings += [note for note in map(filling_note, (fixed, moving)) if note]
        run.progress("prepare", 0.4)
        body = mask_or_body(fixed_work, options.fixed_mask)
    return Prepared(fixed, moving, Pair(fixed_work, moving_work, options.fixed_mask, options.moving_mask), body)


def _truth_notes(fixed: Volume, moving: Volume, options: Options) -> list[str]:
    """What to say of labels and points that do not quite fit their images."""
    notes: list[str | None] = []
    if options.fixed_labels is not None and options.moving_labels is not None:
        notes += [grid_note(options.fixed_labels, fixed), grid_note(options.moving_labels, moving)]
    lists = (options.fixed_points, options.moving_points)
    if lists[0] is not None and lists[1] is not None and len(lists[0]) != len(lists[1]):
        raise InputError(f"{len(lists[0])} fixed points but {len(lists[1])} moving points; they must correspond.")
    for points, image in zip(lists, (fixed, moving), strict=True):
        if points is not None:
            notes.append(outside_note(points, image.grid, image.name))
    return [note for note in notes if note]
