"""What speaks for and against a registration, in numbers: nothing here was made small by the solver alone.

Every figure is measured on the finished map. A figure that the images do not allow is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ..align.pairs import body_points
from ..anatomy.body import body_mask
from ..anatomy.cache import embed_known
from ..anatomy.embedding import SamEmbedding
from ..anatomy.level import CONFIDENT
from ..anatomy.search import nearest
from ..errors import InputError
from ..features.mind import mind_ssc
from ..report.verdict import verdict
from ..settings.registration import Settings
from ..space.filling import as_air
from ..space.filters import smooth
from ..space.grid import Grid
from ..space.intensity import looks_like_ct, normalized_intensity
from ..space.linear import nearest_axis_rotation, turn
from ..space.transforms import AffineTransform, Transform
from ..space.turning import Turn
from ..space.volume import Volume, average_to, resample
from ..weights.models import load_sam, weights_for
from .finish import Maps
from .magnify import Magnification
from .pair import Pair

# Places are compared on a grid of about this many voxels, between these spacings, mm.
_VOXELS, _FINEST, _COARSEST = 80_000, 1.5, 6.0
# Steps of that grid: a place is looked for within the first and counts as found within the second.
_REACH, _NEAR = 3.4, 1.05
# Embeddings are searched again this far around the map's answer and count as found within this, mm.
_EMBEDDING_REACH_MM, _EMBEDDING_NEAR_MM, _EMBEDDING_THERE_MM = 20.0, 6.0, 25.0
# Between the lattice of the affine stage's pairs, mm.
_LATTICE_MM = 21.0
_FEWEST_POINTS = 60
# Images whose working spacing nobody chose are averaged to about this, mm.
_EVALUATED_MM = 2.0
# Tissue classes of CT, HU.
_BONE_HU, _AIR_HU = 200.0, -500.0
# In scans of one patient, brightness that differs by more is a change, not noise or contrast agent; HU.
_CHANGED_HU = 180.0
# Above the second, contrast agent alone changes the brightness.
_CHANGE_HU = (-1000.0, 150.0)
# Looked for on a grid of at least this spacing and about this many voxels; thinner changes than a ball of the radius
# are edges.
_CHANGE_MM, _CHANGE_VOXELS, _CHANGE_RADIUS_MM = 3.0, 1_000_000, 6.0


@dataclass(frozen=True)
class _Overlap:
    """Both images where the fixed body and the moving image's data meet.

    Attributes:
        grid: identity directions around the fixed body.
        fixed, warped: (1, 1, D, H, W) float32, the second the registered moving image, in their own units.
        body: bool, the fixed body; moving_body: bool, that of the moving image carried over, None without one.
        seen: bool, where both images have data.
    """

    grid: Grid
    fixed: Volume
    warped: Volume
    body: torch.Tensor
    moving_body: torch.Tensor | None
    seen: torch.Tensor


def gathered(
    pair: Pair,
    maps: Maps,
    body: Volume,
    *,
    data: tuple[Volume | None, Volume | None] = (None, None),
    same_patient: bool = False,
    weights: Any = None,
    device: torch.device | str = "cpu",
    report: Callable[[float], None] = lambda fraction: None,
) -> dict[str, float]:
    """The evidence on a finished registration.

    Args:
        pair: both images and masks; their embeddings are used where this process or the disk knows them.
        maps: what was found.
        body: fixed body or mask, nonzero.
        data: above 0 where the fixed and the moving image show anything; None for everywhere. A part that was blanked
            out of one image says nothing of how well the other lies on it, and is not covered.
        same_patient: the images are said to show one patient: tissue that changed between them is looked for.
        weights: of the embedding network, as :func:`samconvex.register` takes them.

    Returns:
        Figures by name, those of :data:`samconvex.report.verdict.EVIDENCE`.
    """
    found: dict[str, float] = {}
    overlap = _overlap(pair, maps.forward, body, data)
    report(0.1)
    points = body.points()
    points = points[:: max(1, len(points) // 4000)]
    found |= _coverage(pair, maps, points, overlap, data)
    found |= _plausibility(maps, points, body)
    report(0.2)
    shared = overlap.body & overlap.seen
    if int(shared.sum()) >= _FEWEST_POINTS:
        if all(map(looks_like_ct, (pair.fixed, pair.moving))):
            found |= _tissues(overlap) | _residual(overlap)
            found |= _changed(pair, maps.forward, body) if same_patient else {}
        found |= _brightness(overlap)
        # Between modalities right results score lower too: figures of their own.
        across = "" if pair.fixed.modality == pair.moving.modality else "across_"
        found |= {f"{across}{name}": value for name, value in _places(overlap).items()}
    report(0.6)
    found |= _embedded(pair, maps.forward, weights, device)
    report(0.9)
    for volume in (pair.fixed, pair.moving):
        for name, value in stack_figures(volume).items():
            found[name] = max(value, found.get(name, value))
    report(1.0)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def judged(
    fixed: Volume, moving: Volume, maps: Maps, body: Volume, measured: Mapping, report: Callable[[float], None]
) -> dict[str, Any]:
    """The verdict on any map of two images, whatever made it; ``measured`` are the report's figures."""
    size = Magnification.of(fixed, moving)
    pair = Pair(*(average_to(as_air(size.volume(volume)), _EVALUATED_MM) for volume in (fixed, moving)))
    evidence = gathered(pair, size.large_maps(maps), size.volume(body), report=report)
    return verdict(evidence | told(pair, Settings("", ""), {"magnification": size.factor}, measured))


def told(pair: Pair, settings: Settings, details: Mapping, measured: Mapping) -> dict[str, float]:
    """What the stages before have found out, as evidence.

    Args:
        details: of the run, its ``affine`` and ``magnification`` among them.
        measured: the report's figures, those of labels and points where they were given.
    """
    affine = details.get("affine", {})
    found: dict[str, float] = {}
    for name, key in (("start_confidence", "confidence"), ("start_apart_mm", "apart_mm"), ("start_gain", "gain")):
        if key in affine:
            found[name] = float(affine[key])
    if "embeddings_confidence" in affine:
        found["anatomy_confidence"] = float(affine["embeddings_confidence"])
    found["turned"] = float("turned_deg" in affine)
    found |= _of_anatomy(details.get("anatomy") or {})
    found["other_modality"] = float(other_modality(pair, settings.modality))
    before, after = (measured.get(f"dice_{moment}") for moment in ("initial", "final"))
    if after:
        found["dice"] = float(np.mean(list(after.values())))
        found["dice_gain"] = found["dice"] - float(np.mean(list((before or after).values())))
        found["worst_dice"] = min(after.values())
    errors = measured.get("tre_final_mm")
    if errors is not None and len(errors):
        # Of a mouse, a millimeter is much.
        found["point_error_mm"] = float(np.median(errors)) * details.get("magnification", 1.0)
    return found


def _of_anatomy(record: Mapping) -> dict[str, float]:
    """What is known of the parts of the body shown: the share they have in common, and how each patient lies."""
    found = {}
    if record.get("common_percent") is not None:
        found["common_percent"] = float(record["common_percent"])
    sides = [record.get(side) or {} for side in ("fixed", "moving")]
    lies = [side["orientation"] for side in sides if side.get("orientation")]
    if lies:
        found["lies_otherwise"] = float(any(way != "upright" for way in lies))
    sizes = [side["size"] for side in sides if side.get("confidence", 0.0) >= CONFIDENT and "size" in side]
    if sizes:
        found["largest_body"] = max(sizes)
    if any(side.get("mirrored") is True for side in sides):
        found["mirrored_image"] = 1.0
    return found


def other_modality(pair: Pair, expected: str) -> bool:
    """True where the images are not what a preset is for ("ct", "mr", "mr and ct"; "" is for any)."""
    are_ct = sorted(map(looks_like_ct, (pair.fixed, pair.moving)))
    wanted = {"ct": [True, True], "mr": [False, False], "mr and ct": [False, True]}
    return bool(expected) and are_ct != wanted[expected]


def _overlap(pair: Pair, forward: Transform, body: Volume, data: tuple[Volume | None, Volume | None]) -> _Overlap:
    box = body.box()
    spacing = float(np.clip((np.prod(box[1] - box[0]) / _VOXELS) ** (1 / 3), _FINEST, _COARSEST))
    grid = Grid.covering(box, spacing, margin_mm=4 * spacing)
    inside = resample(body, grid, mode="nearest", fill=0.0).tensor > 0
    warped = forward.warp_volume(pair.moving.with_tensor(pair.moving.as_float()), grid)
    ones = pair.fixed.with_tensor(torch.ones_like(pair.fixed.tensor, dtype=torch.uint8))
    has_fixed = resample(ones, grid, mode="nearest", fill=0.0).tensor > 0
    seen = has_fixed & (forward.validity(pair.moving, grid).tensor > 0)
    if data[0] is not None:
        seen &= resample(data[0], grid, mode="nearest", fill=1.0).tensor > 0
    if data[1] is not None:
        seen &= forward.warp_volume(data[1], grid, background=1.0).tensor > 0.5
    moving_body = None
    try:
        moving_body = forward.warp_nearest(body_mask(pair.moving), grid).tensor > 0
    except InputError:
        pass
    if pair.moving_mask is not None:
        moving_body = forward.warp_nearest(pair.moving_mask, grid).tensor > 0
    fixed = resample(pair.fixed.with_tensor(pair.fixed.as_float()), grid)
    # What an image is shows in all of it, not in the part around the body.
    fixed, warped = (
        replace(part, known_modality=whole.modality) for part, whole in ((fixed, pair.fixed), (warped, pair.moving))
    )
    return _Overlap(grid, fixed, warped, inside, moving_body, seen)


def _dice(first: torch.Tensor, second: torch.Tensor) -> float:
    """Dice of two bool masks; NaN where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else float("nan")


def _coverage(
    pair: Pair, maps: Maps, points: np.ndarray, overlap: _Overlap, data: tuple[Volume | None, Volume | None]
) -> dict[str, float]:
    found = {}
    inside = points[pair.fixed.grid.contains(points)]
    if len(inside):
        covered = maps.forward.reaches(pair.moving, inside) & _shown(data[1], maps.forward.map_points(inside))
        found["covered_percent"] = 100 * float(covered.mean())
    if overlap.moving_body is not None:
        found["body_agreement"] = _dice(overlap.body & overlap.seen, overlap.moving_body & overlap.seen)
    try:
        other = body_mask(pair.moving).points()
    except InputError:
        return found
    other = other[:: max(1, len(other) // 4000)]
    other = other[pair.moving.grid.contains(other)]
    if len(other):
        covered = maps.backward.reaches(pair.fixed, other) & _shown(data[0], maps.backward.map_points(other))
        found["covered_moving_percent"] = 100 * float(covered.mean())
    return found


def _shown(data: Volume | None, points: np.ndarray) -> np.ndarray:
    """(N,) bool: not where an image was blanked out; true outside of it."""
    shown = np.ones(len(points), bool)
    if data is not None:
        voxels = np.round(data.grid.points_to_voxels(points)).astype(int)
        within = ((voxels >= 0) & (voxels < np.asarray(data.grid.size))).all(1)
        x, y, z = voxels[within].T
        shown[within] = data.tensor[0, 0].cpu().numpy()[z, y, x] > 0
    return shown


def _plausibility(maps: Maps, points: np.ndarray, body: Volume) -> dict[str, float]:
    """Of the linear map nearest to the result, and of what the deformation adds to it."""
    mapped = maps.forward.map_points(points)
    centered = points - points.mean(0)
    linear = np.linalg.lstsq(centered, mapped - mapped.mean(0), rcond=None)[0].T
    left, stretches, right = np.linalg.svd(linear)
    rotation = left @ right
    determinant = float(np.linalg.det(linear))
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    found = {
        "scale": float(np.cbrt(abs(determinant))),
        "stretch": float(stretches.max() / max(stretches.min(), 1e-6)),
        "turn_deg": float(np.degrees(np.arccos(cosine))),
        "mirrored": float(determinant < 0),
    }
    remaining = np.linalg.norm(mapped - mapped.mean(0) - centered @ linear.T, axis=1)
    found["deformation_p95_mm"] = float(np.percentile(remaining, 95))
    back = np.linalg.norm(maps.backward.map_points(mapped) - points, axis=1)
    found["inverse_p95_mm"] = float(np.percentile(back, 95))
    if maps.jacobian is not None:
        inside = resample(body, maps.jacobian.grid, mode="nearest", fill=0.0).tensor > 0
        ratio = maps.jacobian.tensor[inside].float()
        if len(ratio):
            found["folding_percent"] = 100 * float((ratio <= 0).float().mean())
            extreme = (ratio < 1 / 2.5) | (ratio > 2.5)
            found["extreme_volume_percent"] = 100 * float(extreme.float().mean())
            found["unevenness"] = float(ratio.clamp(min=1e-3).log().std())
    return found


def _tissues(overlap: _Overlap) -> dict[str, float]:
    """Overlap of bone, and of gas inside the bodies, in two CTs."""
    shared = overlap.seen & overlap.body
    both = shared if overlap.moving_body is None else overlap.seen & (overlap.body | overlap.moving_body)
    found = {}
    bones = [(v.tensor > _BONE_HU) & both for v in (overlap.fixed, overlap.warped)]
    air = [(v.tensor < _AIR_HU) & shared for v in (overlap.fixed, overlap.warped)]
    # A handful of voxels says nothing.
    for name, masks in (("bone_agreement", bones), ("air_agreement", air)):
        if max(int(m.sum()) for m in masks) >= 0.01 * int(shared.sum()):
            found[name] = _dice(*masks)
    return found


def _brightness(overlap: _Overlap) -> dict[str, float]:
    """How the brightness of one image foretells that of the other where both show the body."""
    shared = overlap.seen & overlap.body
    first, second = (normalized_intensity(v)[shared] for v in (overlap.fixed, overlap.warped))
    found = {}
    if float(first.std()) > 1e-6 and float(second.std()) > 1e-6:
        found["correlation"] = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
        found["shared_information"] = _shared_information(first, second)
    return found


def _residual(overlap: _Overlap) -> dict[str, float]:
    """What two CTs still differ by: soft tissue on average, and places that turned into another tissue."""
    shared = overlap.seen & overlap.body
    soft, all_tissue = (
        (overlap.fixed.tensor.clamp(*limits) - overlap.warped.tensor.clamp(*limits)).abs()
        for limits in ((-200, 300), (-1000, 500))
    )
    changed = (all_tissue > _CHANGED_HU) & shared
    return {
        "residual_hu": float(soft[shared].mean()),
        "changed_percent": 100 * float(changed[shared].float().mean()),
    }


def _changed(pair: Pair, forward: Transform, body: Volume) -> dict[str, float]:
    """The largest body of tissue that turned into another, in two CTs; edges that are a little off do not count."""
    box = body.box()
    spacing = float(max((np.prod(box[1] - box[0]) / _CHANGE_VOXELS) ** (1 / 3), _CHANGE_MM))
    grid = Grid.covering(box, spacing)
    inside = resample(body, grid, mode="nearest", fill=0.0).tensor > 0
    first = resample(pair.fixed.with_tensor(pair.fixed.as_float()), grid).tensor.clamp(*_CHANGE_HU)
    second = forward.warp_volume(pair.moving.with_tensor(pair.moving.as_float()), grid).tensor.clamp(*_CHANGE_HU)
    changed = ((first - second).abs() > _CHANGED_HU) & inside & (forward.validity(pair.moving, grid).tensor > 0)
    radius = max(1, round(_CHANGE_RADIUS_MM / spacing))
    opened = sitk.BinaryMorphologicalOpening(
        sitk.GetImageFromArray(changed[0, 0].to(torch.uint8).numpy()), [radius] * 3, sitk.sitkBall
    )
    sizes = np.bincount(sitk.GetArrayFromImage(sitk.ConnectedComponent(opened)).ravel())[1:]
    return {"changed_ml": float(sizes.max()) * spacing**3 / 1e3 if len(sizes) else 0.0}


def _shared_information(first: torch.Tensor, second: torch.Tensor, bins: int = 24) -> float:
    """Mutual information over the smaller entropy (0 unrelated, 1 a function of each other), from ranks."""
    ranks = [(v.argsort().argsort().double() * bins / len(v)).long().clamp(max=bins - 1) for v in (first, second)]
    joint = torch.bincount(ranks[0] * bins + ranks[1], minlength=bins * bins).double().view(bins, bins)
    joint = joint / joint.sum()
    single = [joint.sum(1), joint.sum(0)]

    def entropy(p: torch.Tensor) -> float:
        p = p[p > 0]
        return float(-(p * p.log()).sum())

    separate = [entropy(p) for p in single]
    # The bias of an empty histogram (Miller and Madow).
    information = sum(separate) - entropy(joint.flatten()) - (bins - 1) ** 2 / (2 * len(first))
    return information / max(min(separate), 1e-6)


def _places(overlap: _Overlap) -> dict[str, float]:
    """Whether structures lie where the map says: self-similarity compared there and all around.

    ``near_percent`` is the share of structured places whose best match within some steps lies at the map's answer or
    beside it; ``near_gain`` by how much the answer beats the places around it (0 not at all, 1 entirely).
    """
    descriptors = [mind_ssc(normalized_intensity(v), 1, 1) for v in (overlap.fixed, overlap.warped)]
    shared = overlap.seen & overlap.body
    values = normalized_intensity(overlap.fixed)
    variance = smooth(values.square(), 1) - smooth(values, 1).square()
    structured = shared & (variance >= variance[shared].median())
    where = structured[0, 0].nonzero()
    where = where[:: max(1, len(where) // 4000)]
    z, y, x = where.T
    limit = int(_REACH)
    steps = [np.array(s) - limit for s in np.ndindex(*(2 * limit + 1,) * 3)]
    # Beyond the neighbors every second step (of a face-centered lattice) is enough.
    offsets = [o for o in steps if (length := np.linalg.norm(o)) <= _NEAR or (length <= _REACH and sum(o) % 2 == 0)]
    costs = torch.empty(len(offsets), len(where))
    valid = overlap.seen.float()
    for row, offset in enumerate(offsets):
        shift = tuple(int(-o) for o in offset)
        there, known = (torch.roll(v, shift, (2, 3, 4)) for v in (descriptors[1], valid))
        cost = (descriptors[0] - there).square_().sum(1, keepdim=True)
        cost = smooth(cost, 1)[0, 0, z, y, x]
        costs[row] = torch.where(known[0, 0, z, y, x] > 0, cost, torch.inf)
    lengths = torch.tensor([float(np.linalg.norm(o)) for o in offsets])
    best = lengths[costs.argmin(0)]
    here = costs[int(lengths.argmin())]
    around = costs[lengths > 2]
    finite = torch.isfinite(around)
    mean = torch.where(finite, around, torch.zeros_like(around)).sum(0) / finite.sum(0).clamp(min=1)
    usable = finite.sum(0) > 0.5 * len(around)
    if int(usable.sum()) < _FEWEST_POINTS:
        return {}
    return {
        "near_percent": 100 * float((best[usable] <= _NEAR).float().mean()),
        "near_gain": 1 - float(here[usable].sum() / mean[usable].sum().clamp(min=1e-9)),
    }


def _embedded(pair: Pair, forward: Transform, weights: Any, device: torch.device | str) -> dict[str, float]:
    """Whether the anatomy around places is found again where the map says; only of embeddings already known."""
    model = load_sam(weights_for("sam", weights))
    # No network knows a patient who lies turned: the affine stage has looked at the moving image turned upright.
    upright = Turn(nearest_axis_rotation(turn(forward, pair.fixed.grid.corners())), pair.moving.grid.center)
    embeddings = [embed_known(v, model, device=device) for v in (pair.fixed, upright.upright(pair.moving))]
    fixed, moving = embeddings
    if fixed is None or moving is None:
        return {}
    to_upright = upright.map_upright(AffineTransform.identity())
    return anatomy_figures(fixed, moving, Transform((*forward.parts, to_upright)))


def anatomy_figures(fixed: SamEmbedding, moving: SamEmbedding, forward: Transform) -> dict[str, float]:
    """Figures of two embeddings under a map of fixed points to moving points."""
    points = body_points(fixed, _LATTICE_MM, limit=700)
    mapped = forward.map_points(points)
    body = Volume(moving.body.cpu().to(torch.uint8)[None, None], moving.fine.grid)
    voxels = np.round(body.grid.points_to_voxels(mapped)).astype(int)
    within = np.flatnonzero(((voxels >= 0) & (voxels < np.asarray(body.grid.size))).all(1))
    x, y, z = voxels[within].T
    within = within[moving.body.cpu().numpy()[z, y, x]]
    points, mapped = points[within], mapped[within]
    if len(points) < _FEWEST_POINTS:
        return {}
    descriptors = fixed.descriptors(points)
    near, _ = nearest(moving, descriptors, around=mapped, reach_mm=_EMBEDDING_REACH_MM)
    anywhere, best = nearest(moving, descriptors, thorough=False)
    here = (descriptors * moving.descriptors(mapped)).sum(1).cpu().numpy()
    apart = np.linalg.norm(near - mapped, axis=1), np.linalg.norm(anywhere - mapped, axis=1)
    return {
        "anatomy_near_percent": 100 * float((apart[0] <= _EMBEDDING_NEAR_MM).mean()),
        "anatomy_there_percent": 100 * float((apart[1] <= _EMBEDDING_THERE_MM).mean()),
        "anatomy_similarity": float(np.median(here)),
        "anatomy_lost": float(np.median(best - here)),
    }


def stack_figures(volume: Volume) -> dict[str, float]:
    """Whether an image's slices follow each other as those of one body do.

    ``slices_disorder``: how much neighbors differ relative to slices two apart (below 1 in order, about 1 shuffled);
    ``slices_jump``: the largest step between neighbors relative to the usual one;
    ``slices_invented``: the longest run of slices that are exact mixtures of their neighbors, mm.
    """
    values = normalized_intensity(volume)[0, 0]
    step = max(1, max(values.shape[1:]) // 64)
    stack = values[:, ::step, ::step]
    used = (stack - stack[:, :1, :1]).abs().flatten(1).amax(1) > 1e-3
    rows = used.nonzero().flatten()
    if len(rows) < 12:
        return {}
    stack = stack[int(rows[0]) : int(rows[-1]) + 1]
    one = (stack[1:] - stack[:-1]).abs().mean((1, 2))
    two = (stack[2:] - stack[:-2]).abs().mean((1, 2))
    found = {
        "slices_disorder": float(one.sum() / two.sum().clamp(min=1e-9)) * (len(two) / len(one)),
        "slices_jump": float(one.max() / one.median().clamp(min=1e-9)),
    }
    bent = (stack[2:] - 2 * stack[1:-1] + stack[:-2]).abs().mean((1, 2))
    flat = (bent < 0.02 * one[1:].clamp(min=1e-9)).tolist()
    longest = run = 0
    for is_flat in flat:
        run = run + 1 if is_flat else 0
        longest = max(longest, run)
    through = volume.grid.spacing[2]
    found["slices_invented_mm"] = longest * float(through)
    return found
