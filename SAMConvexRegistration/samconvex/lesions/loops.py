"""Visit to visit: the place that the visit before leads to, held against the place straight from the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..anatomy.embedding import SamEmbedding
from ..space.volume import Volume
from .baseline import Baseline
from .judging import carried_contour
from .lesion import Lesion
from .locating import Place, locate


def loop_distances(
    known: Sequence[Baseline],
    before: tuple[Volume, SamEmbedding, Sequence[Place]],
    later: tuple[Volume, SamEmbedding, Sequence[Place]],
    report: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """(N,) mm between baseline -> visit before -> later visit and baseline -> later visit; NaN where a place is unseen.

    Args:
        known: the lesions at the baseline. before, later: image, embedding and the lesions' places of the two visits.
    """
    distances = np.full(len(known), np.nan)
    rows, entries = [], []
    for row, (entry, first, second) in enumerate(zip(known, before[2], later[2], strict=True)):
        contour = carried_contour(entry, first, 8.0) if first.in_view and second.in_view else None
        if contour is not None and before[0].grid.contains(first.point[None])[0]:
            rows.append(row)
            entries.append(replace(entry, lesion=Lesion(entry.lesion.name, first.point), contour=contour))
    chained = locate(before[0], before[1], entries, later[0], later[1], report)
    for row, place in zip(rows, chained, strict=True):
        if place.in_view:
            distances[row] = np.linalg.norm(place.point - later[2][row].point)
    return distances
