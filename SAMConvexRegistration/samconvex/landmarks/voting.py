"""Several templates of the same landmarks: where most of their answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matching import Matches

# Answers further apart than this do not mean the same place.
_AGREEMENT_MM = 15.0


@dataclass(frozen=True)
class Vote:
    """The common answer of M templates for N points.

    Attributes:
        matches: as from one template; score and cycle error are those of the templates that agree, averaged.
        votes: (N,) templates that agree on the place; 0 where nothing was found.
        spread_mm: (N,) root mean square distance of the agreeing answers from their mean; 0 with one template.
    """

    matches: Matches
    votes: np.ndarray
    spread_mm: np.ndarray


def vote(answers: Sequence[Matches]) -> Vote:
    """Combine the answers that several templates give for the same N points, in the same order.

    Every found answer supports the places near it with its weight (score and cycle error); the best supported place
    wins, and what lies around it is averaged. An answer without others still counts: templates may miss a landmark.
    Where no template found a point, the answer with the best score is kept as not found.
    """
    points = np.stack([a.points for a in answers])
    score = np.stack([a.score for a in answers])
    cycle = np.stack([a.cycle_mm for a in answers])
    found = np.stack([a.found for a in answers])
    weight = np.where(found, np.clip(score, 0.05, 1) ** 4 * np.exp(-((cycle / 10) ** 2)) + 1e-6, 0.0)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    support = (np.exp(-((distance / _AGREEMENT_MM) ** 2)) * weight[None]).sum(1) * (weight > 0)
    anyone = found.any(0)
    winner = np.where(anyone, support.argmax(0), score.argmax(0))
    columns = np.arange(points.shape[1])
    agree = (distance[winner, :, columns].T <= _AGREEMENT_MM) & found
    agree[winner, columns] = True
    share = np.where(agree, np.maximum(weight, 1e-12), 0.0)
    share /= share.sum(0)
    place = (share[..., None] * points).sum(0)
    spread = np.sqrt((share * ((points - place) ** 2).sum(-1)).sum(0))
    # A template that lacks a point has no score and no opinion.
    silent = score == 0
    beyond = np.stack([np.zeros(len(a), bool) if a.outside is None else a.outside for a in answers])
    outside = (beyond | silent).all(0) & ~silent.all(0)
    common = Matches(place, (share * score).sum(0), (share * cycle).sum(0), np.asarray(anyone), outside)
    return Vote(common, np.where(anyone, agree.sum(0), 0), spread)
