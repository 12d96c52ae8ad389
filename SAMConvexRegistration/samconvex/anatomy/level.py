"""Which part of the body an image shows, from its embedding and a reference of embedded places with known levels.

Places of the image are matched to the shipped reference; a robust line of level against height says where in the body
every slice lies, the sign of its slope whether the feet come first. What fits no body, or lies turned, has no line
that most places agree on, or none better than along another axis. It costs a matrix product: the embedding is
there already. The reference is built by ``samconvex train levels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError, refusing
from ..io.files import file_sha256
from ..weights.checkpoints import read_checkpoint
from ..weights.registry import DEFAULT_LEVELS, WeightsEntry, check_unchanged, known_weights
from .embedding import SamEmbedding
from .known import KNOWN

REFERENCE_FORMAT = "samconvex-levels"
REFERENCE_VERSION = 1
# Written for a lateral place that is not known: files hold finite values only.
UNKNOWN_MM = 9999.0
# Name of a region and the level where it begins, mm below the vertex of the reference body.
REGIONS = (("head", 0.0), ("neck", 170.0), ("chest", 265.0), ("abdomen", 450.0), ("pelvis", 650.0), ("thigh", 880.0))
# A region counts as shown from this length on, or where nothing longer is shown.
_SHOWN_MM = 30.0
# Of the levels that both images show, the share of the shorter one below which they have little in common.
LITTLE_IN_COMMON = 0.15
CONFIDENT = 0.5
# Below this, something is wrong with an image whose partner is recognised: every turned training image lies below.
DOUBTFUL = 0.3
# A place whose level lies this far from the image's is not in it.
OUTSIDE_MM = 40.0

# Places of an image that are matched; fewer tell nothing.
_PLACES, _FEWEST = 300, 20
_CANDIDATES = 3
_AGREEING_MM = 40.0
_STRETCHES = np.linspace(0.8, 1.25, 10)
# A short image tells little of the stretch: as if a further body of this length had none.
_PRIOR_MM = 150.0
# Share of the places with an agreeing level, from nothing to sure.
_AGREEMENT = (0.2, 0.4)
# How much better the axis of the body explains the places than another one, from nothing to sure. Training patients:
# 0.33 to 0.47 upright, 0.22 to 0.30 feet first, at most 0.18 turned by a quarter or a half.
_MARGIN = {1: (0.13, 0.33), -1: (0.1, 0.3)}
UPRIGHT, FEET_FIRST = "upright", "feet first"
_NO_BODY, _TOO_LITTLE = "shows no body that lies as its header says", "shows too little of a body"


@dataclass(frozen=True)
class BodyReference:
    """Places of bodies by their descriptors.

    Attributes:
        basis: (C, K) that shortens descriptors, see :meth:`SamEmbedding.descriptors`.
        vectors: (P, K) float32 unit descriptors, shortened.
        places: (P, 3) mm: to the patient's left (NaN in limbs) and back from the middle of the body, and level, down
            from the vertex of the reference body.
        network: sha256 of the weights that made them.
    """

    basis: torch.Tensor
    vectors: torch.Tensor
    places: np.ndarray
    network: str


@dataclass(frozen=True)
class Anatomy:
    """What an image shows.

    Attributes:
        recognised: a body was recognised.
        reason: why not; empty if it was.
        confidence: 0 to 1; trust the rest from :data:`CONFIDENT` on.
        orientation: "upright" or "feet first". Embeddings say left of what lies at the left of the image, whoever it
            is: they tell neither a mirrored patient nor one who lies face down.
        line: level = line[0] + line[1] * z (LPS mm).
        z_mm, levels_mm: (S,) height of planes across the image and the level of each.
        regions: names of what is shown, from head to feet.
    """

    recognised: bool
    reason: str = ""
    confidence: float = 0.0
    orientation: str = ""
    line: tuple[float, float] = (0.0, -1.0)
    z_mm: tuple[float, ...] = ()
    levels_mm: tuple[float, ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def can_be_judged(self) -> bool:
        """False where nothing was looked at: no reference, other weights."""
        return self.recognised or self.reason in (_NO_BODY, _TOO_LITTLE)

    @property
    def is_clear(self) -> bool:
        return self.recognised and self.confidence >= CONFIDENT

    @property
    def span_mm(self) -> tuple[float, float]:
        """Lowest and highest level shown."""
        return min(self.levels_mm), max(self.levels_mm)

    def levels_of(self, points: np.ndarray) -> np.ndarray:
        """(N,) levels in mm of LPS points (N, 3)."""
        return self.line[0] + self.line[1] * np.asarray(points, float)[:, 2]

    def in_words(self) -> str:
        """The regions: "the head and neck"."""
        *first, last = self.regions
        return f"the {', '.join(first)} and {last}" if first else f"the {last}"

    def record(self) -> dict[str, Any]:
        """For ``report.json``."""
        if not self.recognised:
            return {"recognised": False, "reason": self.reason}
        return {
            "recognised": True,
            "confidence": round(self.confidence, 3),
            "regions": list(self.regions),
            "from_mm": round(self.span_mm[0], 1),
            "to_mm": round(self.span_mm[1], 1),
            "orientation": self.orientation,
            "mirrored": "cannot be told",
        }


def anatomy_of(embedding: SamEmbedding, reference: BodyReference | None = None) -> Anatomy:
    """What an embedded image shows; remembered for as long as the embedding lives.

    Args:
        reference: default the shipped one; where it is missing or of another network, nothing is recognised.

    Raises:
        InputError: the shipped reference is damaged.
    """
    if reference is not None:
        return _anatomy_of(embedding, reference)
    reference = shipped_reference()
    if reference is None:
        return Anatomy(False, "the reference of body levels is not installed")
    if embedding not in KNOWN.anatomies:
        KNOWN.anatomies[embedding] = _anatomy_of(embedding, reference)
    return KNOWN.anatomies[embedding]


def _anatomy_of(embedding: SamEmbedding, reference: BodyReference) -> Anatomy:
    if reference.network != embedding.network:
        return Anatomy(False, "the reference of body levels belongs to other weights")
    points = _places(embedding)
    if len(points) < _FEWEST:
        return Anatomy(False, _TOO_LITTLE)
    return judged(points, embedding.descriptors(points), _heights(embedding), reference)


def judged(points: np.ndarray, descriptors: torch.Tensor, heights: np.ndarray, reference: BodyReference) -> Anatomy:
    """What places (N, 3; LPS mm) with their descriptors (N, C) say of an image that shows the body at ``heights``."""
    rows, weights = _matched(descriptors, reference)
    places = reference.places[rows]
    matrix, margin = _orientation(points, places, weights)
    if not matrix[2, 2]:
        return Anatomy(False, _NO_BODY)
    way = int(matrix[2, 2])
    line = _line(points[:, 2], places[:, :, 2], weights, -way)
    agrees = np.abs(places[:, 0, 2] - line[0] - line[1] * points[:, 2]) < _AGREEING_MM
    parts = ((agrees.mean(), _AGREEMENT), (margin, _MARGIN[way]))
    confidence = float(min(np.clip((value - low) / (high - low), 0, 1) for value, (low, high) in parts))
    if confidence == 0:
        return Anatomy(False, _NO_BODY)
    shown = line[0] + line[1] * heights
    return Anatomy(
        True,
        "",
        confidence,
        UPRIGHT if way > 0 else FEET_FIRST,
        line,
        tuple(float(z) for z in heights),
        tuple(float(level) for level in shown),
        regions_of(float(shown.min()), float(shown.max())),
    )


def common_anatomy(a: Anatomy, b: Anatomy) -> float | None:
    """Share (0 to 1) of the shorter image's levels that the other image shows too; None where one is not clear."""
    if not (a.is_clear and b.is_clear):
        return None
    (low, high), (other_low, other_high) = a.span_mm, b.span_mm
    shorter = min(high - low, other_high - other_low)
    return float(np.clip((min(high, other_high) - max(low, other_low)) / max(shorter, 1e-6), 0, 1))


def warnings_about(first: Anatomy, second: Anatomy, names: tuple[str, str] = ("fixed", "moving")) -> list[str]:
    """Sentences that a person must read before anything is made of two images; the gravest first."""
    sentences = []
    share = common_anatomy(first, second)
    if share is not None and share < LITTLE_IN_COMMON:
        common = "nothing in common" if share == 0 else f"only {100 * share:.0f} % of the shorter one in common"
        sentences.append(
            f"{names[0]} shows {first.in_words()}, {names[1]} {second.in_words()}: {common}; check that these are the "
            "images you meant."
        )
    for anatomy, other, name, name2 in ((first, second, *names), (second, first, *names[::-1])):
        if anatomy.is_clear and anatomy.orientation == FEET_FIRST:
            sentences.append(f"{name} lies feet first against its header; check the sides, and correct the header.")
        if anatomy.confidence < DOUBTFUL and anatomy.can_be_judged and other.is_clear:
            sentences.append(
                f"{name2} shows {other.in_words()}, but {name} {anatomy.reason or _NO_BODY}: it may be turned, or show "
                "a limb or nothing of a body; check it."
            )
    return sentences


def level_not_shown(points: np.ndarray, shown_in: Anatomy | None, asked_in: Anatomy | None) -> np.ndarray:
    """(N,) bool: points (N, 3) of one image whose level the other image does not show; False where it is not clear.

    Args:
        shown_in: the image the points belong to.
        asked_in: the image they are looked for in.
    """
    if shown_in is None or asked_in is None or not (shown_in.is_clear and asked_in.is_clear):
        return np.zeros(len(points), bool)
    levels, (low, high) = shown_in.levels_of(points), asked_in.span_mm
    return (levels < low - OUTSIDE_MM) | (levels > high + OUTSIDE_MM)


def regions_of(low: float, high: float) -> tuple[str, ...]:
    """Names of the regions between two levels, from head to feet."""
    starts = [-np.inf, *(begin for _, begin in REGIONS[1:])]
    ends = [*starts[1:], np.inf]
    shown = [
        (min(high, end) - max(low, begin), name) for (name, _), begin, end in zip(REGIONS, starts, ends, strict=True)
    ]
    return tuple(name for length, name in shown if length >= _SHOWN_MM) or (max(shown)[1],)


def shipped_reference() -> BodyReference | None:
    """The shipped reference, read once; None where its file is missing.

    Raises:
        InputError: the file is damaged or altered.
    """
    entry = next((e for e in known_weights() if e.name == DEFAULT_LEVELS), None)
    if entry is None or not entry.path.is_file():
        return None
    return _read_shipped(entry, entry.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_shipped(entry: WeightsEntry, _modified: int) -> BodyReference:
    check_unchanged(entry, file_sha256(entry.path))
    return read_reference(entry.path)


def read_reference(path: Path) -> BodyReference:
    """A reference that ``samconvex train levels`` wrote.

    Raises:
        InputError: missing, foreign or damaged file.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or content.get("format") != REFERENCE_FORMAT:
        raise InputError(f"{path} holds no reference of body levels; give a file of `samconvex train levels`.")
    if content.get("version") != REFERENCE_VERSION:
        raise InputError(f"{path} has format version {content.get('version')}, this version reads {REFERENCE_VERSION}.")
    with refusing(f"{path} holds a damaged reference of body levels; build it again with `samconvex train levels`."):
        return reference_of(content)


def reference_of(content: dict[str, Any]) -> BodyReference:
    """The reference that a file's content stands for.

    Raises:
        ValueError, KeyError: damaged.
    """
    vectors = torch.nn.functional.normalize(content["vectors"].float(), dim=1)
    basis = content["basis"].float()
    places = content["places"].double().numpy()
    if vectors.ndim != 2 or basis.shape[1:] != vectors.shape[1:]:
        raise ValueError("descriptors of other lengths")
    if places.shape != (len(vectors), 3):
        raise ValueError("the tables differ in length")
    places = np.where(np.abs(places) < UNKNOWN_MM / 2, places, np.nan)
    return BodyReference(basis, vectors, places, str(content["network"]))


def _places(embedding: SamEmbedding) -> np.ndarray:
    """(N, 3) LPS points on a lattice in the body."""
    body, grid = embedding.body, embedding.fine.grid
    step = max(1, int(np.ceil((float(body.sum()) / _PLACES) ** (1 / 3))))
    start = step // 2
    chosen = torch.nonzero(body[start::step, start::step, start::step]).cpu().numpy()[:, ::-1] * step + start
    return grid.voxels_to_points(chosen)


def _heights(embedding: SamEmbedding) -> np.ndarray:
    """(S,) LPS z of the planes of the embedding's grid that show the body."""
    grid = embedding.fine.grid
    shown = embedding.body.flatten(1).any(1).nonzero()[:, 0].cpu().numpy()
    planes = np.arange(shown.min(), shown.max() + 1)
    return grid.voxels_to_points(np.stack([0 * planes, 0 * planes, planes], 1).astype(float))[:, 2]


def _matched(descriptors: torch.Tensor, reference: BodyReference) -> tuple[np.ndarray, np.ndarray]:
    """Rows and weights (N, candidates) of the reference places that descriptors fit best."""
    short = torch.nn.functional.normalize(descriptors.cpu().float() @ reference.basis, dim=1)
    scores, rows = (short @ reference.vectors.T).topk(min(_CANDIDATES, len(reference.vectors)), 1)
    weights = scores.clamp(min=0) ** 4 / torch.arange(1, scores.shape[1] + 1)
    return rows.numpy(), weights.double().numpy()


def _orientation(points: np.ndarray, places: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """How the body lies in the image, and how much better that explains the places than another axis of the body.

    Returns:
        (3, 3) signed permutation: lateral and dorsal coordinate and height of the body (as if the level grew upwards)
        along x, y, z. The sides are as most places say, which a mirror image of the symmetric parts does not change.
    """
    shares = np.zeros((3, 3, 2))
    for row, axis, way in product(range(3), range(3), range(2)):
        values = places[:, :, row] * (-1 if row == 2 else 1)
        known = np.isfinite(values).all(1)
        if known.sum() >= _FEWEST:
            slopes = (1 - 2 * way) * _STRETCHES
            shares[row, axis, way] = _votes(points[known, axis], values[known], weights[known], slopes)[0]
    options = [
        (sum(shares[row, axes[row], ways[row]] for row in range(3)), axes, ways)
        for axes in permutations(range(3))
        for ways in product(range(2), repeat=3)
    ]
    best, axes, ways = max(options, key=lambda option: option[0])
    matrix = np.zeros((3, 3))
    matrix[range(3), axes] = 1 - 2 * np.asarray(ways)
    return matrix, best - max(o[0] for o in options if o[1][2] != axes[2])


def _votes(
    along: np.ndarray, values: np.ndarray, weights: np.ndarray, slopes: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Share of the weight on the line (offset, slope) of values (N, candidates) against positions that most want."""
    best, line = -1.0, (0.0, 1.0)
    for slope in slopes:
        rest = values - slope * along[:, None]
        bins = np.arange(rest.min() - 60, rest.max() + 70, 10.0)
        votes = np.histogram(rest, bins, weights=weights)[0]
        # About the width of what agrees.
        smooth = np.convolve(votes, [0.3, 0.7, 1.0, 0.7, 0.3], "same") * (1 - 0.3 * abs(abs(slope) - 1))
        if smooth.max() > best:
            best, line = float(smooth.max()), (float(bins[smooth.argmax()] + 5), float(slope))
    return best / max(float(weights.sum()), 1e-9), line


def _line(z: np.ndarray, levels: np.ndarray, weights: np.ndarray, way: float) -> tuple[float, float]:
    """Robust line (offset, slope) of level against height; ``way`` is the slope's sign, its size what bodies have."""
    offset, slope = _votes(z, levels, weights, way * _STRETCHES)[1]
    heights = np.repeat(z[:, None], levels.shape[1], 1)
    for _ in range(6):
        trust = weights / (1 + ((levels - offset - slope * heights) / 20.0) ** 2) ** 2
        center, mean = np.average(heights, weights=trust), np.average(levels, weights=trust)
        spread = np.average((heights - center) ** 2, weights=trust)
        joint = np.average((heights - center) * (levels - mean), weights=trust)
        prior = _PRIOR_MM**2 / 12
        slope = float(way * np.clip(way * (joint + way * prior) / (spread + prior), _STRETCHES[0], _STRETCHES[-1]))
        offset = float(mean - slope * center)
    return offset, slope
