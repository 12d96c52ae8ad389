"""Where a lesion's place went: guessed by the anatomy, refined by registering the surroundings, the lesion left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..align.by_embeddings import CONFIDENT, pair_affine
from ..align.pairs import matched_pairs
from ..anatomy.embedding import SamEmbedding
from ..landmarks.matching import match_points
from ..space.transforms import AffineTransform, Transform
from ..space.volume import Volume
from .baseline import Baseline
from .neighborhood import local_guide, register_neighborhood


@dataclass(frozen=True)
class Place:
    """A lesion's place in another image. Frame: LPS mm of that image.

    Attributes:
        point: (3,); NaN where it is outside the image.
        forward, backward: maps of points around the lesion to the other image and back; None outside.
        sure: the two images could be aligned.
        score, cycle_mm: of the lesion's own match by embeddings. apart_mm: from that match to ``point``.
    """

    point: np.ndarray
    forward: Transform | None
    backward: Transform | None
    sure: bool
    score: float
    cycle_mm: float
    apart_mm: float

    @property
    def in_view(self) -> bool:
        """Whether the image shows the place."""
        return self.forward is not None


def locate(
    baseline: Volume,
    template: SamEmbedding,
    known: Sequence[Baseline],
    follow_up: Volume,
    query: SamEmbedding,
    report: Callable[[float], None] = lambda fraction: None,
) -> list[Place]:
    """The place of every lesion in the other image.

    Args:
        template, query: the embeddings of ``baseline`` and ``follow_up``. known: lesions, all inside the baseline.
    """
    if not known:
        return []
    guide, details = pair_affine(template, query)
    sure = details["confidence"] >= CONFIDENT
    report(0.2)
    pairs = matched_pairs(template, query, near=guide)[0] if sure else None
    report(0.3)
    matches = match_points(template, np.stack([entry.lesion.point for entry in known]), query)
    report(0.4)
    places = []
    for row, entry in enumerate(known):
        point = entry.lesion.point
        start = local_guide(guide, pairs, point)
        if not sure:
            shift = matches.points[row] - start.map_points(point[None])[0]
            start = AffineTransform(start.matrix, start.translation + shift)
        place = start.map_points(point[None])[0]
        forward: Transform | None = None
        backward: Transform | None = None
        if not sure or follow_up.grid.contains(place[None])[0]:
            forward, backward = register_neighborhood(baseline, template, entry, follow_up, place, start)
            place = forward.map_points(point[None])[0]
            if not follow_up.grid.contains(place[None])[0]:
                forward = backward = None
        apart = float(np.linalg.norm(matches.points[row] - place))
        if forward is None:
            place = np.full(3, np.nan)
        score, cycle = float(matches.score[row]), float(matches.cycle_mm[row])
        places.append(Place(place, forward, backward, sure, score, cycle, apart))
        report(0.4 + 0.6 * (row + 1) / len(known))
    return places
