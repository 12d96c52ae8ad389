"""Lesion tracking: each baseline lesion located, judged and measured in every follow-up.

A lesion's place is guessed by an affine map of the anatomy around it (points matched both ways by embeddings,
align/local_maps.py) and by its own stable-point match, then refined by registering the neighborhood of the two images
with the lesion itself left out, so that growth or loss cannot pull the surroundings along (locating.py). The carried
contour is fitted to the follow-up (contour.py); whether something with the lesion's contrast is there, and how it
measures, decides on its state (judging.py, splitting.py, states.py, merging.py). With several follow-ups each is also
reached through the one before; where the two ways disagree a place is not trusted (loops.py). Nothing here is a
diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..anatomy.cache import embed_cached
from ..anatomy.embedding import SamEmbedding
from ..errors import InputError
from ..progress import Progress, stage
from ..space.volume import Volume, check_volume
from ..weights.models import SamModel, load_sam
from .baseline import describe
from .course import OUTSIDE
from .findings import Finding, TrackingResult
from .judging import judge
from .lesion import Lesion
from .locating import Place, locate
from .loops import loop_distances
from .measurement import Measurement
from .merging import joined

# From this score on a lesion counts as found: calibrated on cases apart from those of the tracking benchmark.
MINIMUM_SCORE = 0.5


def track_lesions(
    baseline: Volume,
    lesions: Sequence[Lesion],
    follow_ups: Sequence[Volume],
    *,
    minimum_score: float | None = None,
    weights: SamModel | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> TrackingResult:
    """Find the baseline's lesions in every follow-up.

    Args:
        lesions: points, segments, boxes or diameters in the baseline, with unique names; one that lies outside the
            baseline is "outside" everywhere, with the reason.
        follow_ups: later images of the same patient in order of time, any geometry and field of view.
        minimum_score: a lesion counts as found from this score on, in [0, 1]; default a calibrated one.
        weights: network for the embeddings; default the shipped one.

    Raises:
        InputError: unusable volumes or weights, all lesions outside the baseline, or names that repeat.
        Cancelled: by ``progress``.
    """
    _check(baseline, lesions, follow_ups)
    limit = MINIMUM_SCORE if minimum_score is None else minimum_score
    model = weights if isinstance(weights, SamModel) else load_sam(weights)
    template = embed_cached(baseline, model, device=device, progress=progress)
    known = [describe(baseline, lesion) for lesion in lesions if is_inside(lesion, baseline)]
    findings: list[Finding] = []
    before: tuple[Volume, SamEmbedding, Sequence[Place]] | None = None
    for number, follow_up in enumerate(follow_ups):
        query = embed_cached(follow_up, model, device=device, progress=progress)
        report = stage(progress, "tracking", number / len(follow_ups), (number + 1) / len(follow_ups))
        straight = 0.9 if before is None else 0.45
        places = locate(baseline, template, known, follow_up, query, lambda f: report(straight * f))  # noqa: B023
        later = (follow_up, query, places)
        loops = np.full(len(known), np.nan)
        if before is not None:
            loops = loop_distances(known, before, later, lambda f: report(0.45 + 0.45 * f))  # noqa: B023
        judged = [
            judge(entry, follow_up, place, number, limit, float(loop))
            for entry, place, loop in zip(known, places, loops, strict=True)
        ]
        merged = joined(
            known,
            [one.finding for one in judged],
            follow_up.grid,
            contours=[one.contour for one in judged],
            carried=[one.carried for one in judged],
        )
        findings += _of_all(lesions, baseline, merged, number)
        before = later
        report(1.0)
    sizes: dict[str, Measurement | None] = dict.fromkeys(lesion.name for lesion in lesions)
    sizes |= {entry.lesion.name: entry.measurement for entry in known}
    return TrackingResult(
        tuple(lesions),
        tuple(findings),
        sizes,
        (baseline.name, *(volume.name for volume in follow_ups)),
        {entry.lesion.name: entry.error for entry in known if not entry.is_point},
    )


def is_inside(lesion: Lesion, image: Volume) -> bool:
    """Whether an image contains the lesion's point."""
    return bool(image.grid.contains(np.asarray(lesion.point, dtype=float)[None])[0])


def outside_note(lesion: Lesion, baseline: Volume) -> str:
    """A sentence on a lesion that its own image does not contain."""
    return f"{lesion.name} lies outside {baseline.name}; check that they belong together."


def _of_all(lesions: Sequence[Lesion], baseline: Volume, judged: Sequence[Finding], number: int) -> list[Finding]:
    """The findings of one follow-up in the order of the lesions, those outside the baseline among them."""
    known = {finding.lesion: finding for finding in judged}
    nowhere = np.full(3, np.nan)
    return [
        known.get(lesion.name)
        or Finding(lesion.name, number, OUTSIDE, nowhere, 0.0, float("inf"), reason=outside_note(lesion, baseline))
        for lesion in lesions
    ]


def _check(baseline: Volume, lesions: Sequence[Lesion], follow_ups: Sequence[Volume]) -> None:
    for volume in (baseline, *follow_ups):
        check_volume(volume)
    if not lesions:
        raise InputError("There is no lesion to track; give at least one.")
    names = [lesion.name for lesion in lesions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two lesions are called {twice}; give each its own name.")
    for lesion in lesions:
        point = np.asarray(lesion.point, dtype=float)
        if point.shape != (3,) or not np.isfinite(point).all():
            raise InputError(f"The place of {lesion.name} is not three numbers; correct it.")
    if not any(is_inside(lesion, baseline) for lesion in lesions):
        raise InputError(outside_note(lesions[0], baseline))
