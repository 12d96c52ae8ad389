"""What tells how far a registration may be off, place by place: matching once more, both ways, around its result.

Nothing here is in millimeters of error yet: :mod:`samconvex.registration.expected_error` weighs the evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from ..settings.registration import FORBIDDEN
from ..space.field import DisplacementField
from ..space.filters import continued, dilated, smooth
from ..space.grid import Grid
from ..space.sampling import sample
from .correlation import LocalCorrelation
from .scene import Extractor, Scene, View, described

# So many control points count at most: larger bodies are looked at more coarsely, in about the same time.
_POINTS = 120_000
# The softmin's temperature as a share of the typical contrast of the costs: a clear match spreads over a step or two.
_TEMPERATURE = 0.15
# Of the batches of costs, every so many tell the typical contrast.
_SKIPPED = 4
# The clearest tenth of the control points are what holds the rest.
_CLEAR = 0.9
# A second minimum is one more than this many steps from the first.
_APART = 1


@dataclass(frozen=True)
class Probe:
    """A descriptor that is matched once more.

    Attributes:
        feature: its name.
        spacing: of the control grid and the steps of the search, mm.
        radius: half width of the search in steps.
        subdivision: feature voxels per control voxel along an axis.
        both_ways: also from the moving image's side, to compare.
    """

    feature: str
    spacing: float
    radius: int
    subdivision: int
    both_ways: bool = True


# Structure finds millimeters; embeddings know the anatomy and look farther; organs end where the network says.
STRUCTURE, ANATOMY = Probe("mind", 6.0, 2, 2), Probe("sam", 9.0, 2, 1)
ORGANS = Probe("semantic", 6.0, 2, 1, both_ways=False)
# After a registration that takes seconds itself.
COARSE_STRUCTURE = Probe("mind", 8.0, 2, 2)


@dataclass(frozen=True)
class Evidence:
    """What speaks for an error at every control point; the larger, the more.

    Attributes:
        maps: by name, (1, 1, D, H, W) float32 on ``grid``, finite.
        grid: control points, identity direction.
    """

    maps: dict[str, torch.Tensor]
    grid: Grid


def evidence_of(
    scene: Scene,
    extractor: Extractor,
    deformation: DisplacementField | None,
    probes: tuple[Probe, ...],
    report: Callable[[float], None],
) -> Evidence:
    """Evidence around a finished registration.

    Args:
        scene: images, initial transform, region and masks.
        deformation: acts before ``scene.initial``; None where the result is linear.
        probes: what is matched once more; the first gives the grid.
        report: receives the finished fraction; may raise Cancelled.
    """
    grid = Grid.covering(scene.box, _affordable(scene, probes[0].spacing))
    maps: dict[str, torch.Tensor] = {}
    shifts = {}
    for number, probe in enumerate(probes):
        found, shift = _rematched(scene, extractor, deformation, probe)
        for name, tensor in found.maps.items():
            maps[f"{probe.feature}_{name}"] = _on(tensor, found.grid, grid)
        shifts[probe.feature] = _on(shift, found.grid, grid)
        report((number + 1) / (len(probes) + 1))
    if ANATOMY.feature in shifts:
        maps["disagreement_mm"] = _length(shifts[STRUCTURE.feature] - shifts[ANATOMY.feature])
    counted = scene.weight_on(grid) > 0.5
    maps |= _of_the_map(deformation, grid, scene.device)
    maps["unseen_mm"] = _distance_to(counted & scene.valid_on(grid, deformation), grid)
    level = maps["mind_flatness"][counted] if bool(counted.any()) else maps["mind_flatness"]
    clear = maps["mind_flatness"] <= torch.quantile(level.flatten(), 1 - _CLEAR)
    maps["featureless_mm"] = _distance_to(clear & counted, grid)
    for name in [name for name in _OF_THE_WHOLE if name in maps]:
        within = maps[name][counted] if bool(counted.any()) else maps[name]
        maps[f"{name}_whole"] = torch.full_like(maps[name], float(within.median()))
    report(1.0)
    return Evidence({name: tensor.float().cpu() for name, tensor in maps.items()}, grid)


# A registration that failed is off everywhere, also where chance makes a place look right.
_OF_THE_WHOLE = ("mind_rank", "mind_inconsistency_mm", "sam_cost", "sam_rank", "sam_shift_mm", "displacement_mm")


def _affordable(scene: Scene, spacing: float) -> float:
    return max(spacing, (scene.counted_mm3() / _POINTS) ** (1 / 3))


def _rematched(
    scene: Scene, extractor: Extractor, deformation: DisplacementField | None, probe: Probe
) -> tuple[Evidence, torch.Tensor]:
    """Evidence of one descriptor on its own control grid, and the shift (1, 3, D, H, W) that it asks for, mm."""
    grid = Grid.covering(scene.box, _affordable(scene, probe.spacing))
    r = probe.radius
    reach = grid.padded(r)
    crop = (slice(None), slice(None), *(slice(r, -r),) * 3)
    chosen = (extractor, (probe.feature,), ())
    fixed = described(View(scene, "fixed"), *chosen, grid, probe.subdivision).tensor
    moving = described(View(scene, "moving", deformation), *chosen, reach, probe.subdivision).tensor
    valid = scene.valid_on(reach, deformation)
    counts = (scene.weight_on(grid) > 0.5) & valid[crop]
    there = LocalCorrelation(fixed, moving, r, valid=valid, weight=counts.float(), memory_budget=scene.memory_budget)
    shape = _shape_of_costs(there, grid)
    forwards = _settled(shape.shift, counts)
    maps = {name: _settled(tensor, counts) for name, tensor in shape.maps.items()}
    maps["shift_mm"] = _length(forwards)
    if not probe.both_ways:
        return Evidence(maps, grid), forwards
    # Backwards only near what counts.
    near = dilated(counts, r) & valid[crop]
    padded = F.pad(fixed, (r,) * 6, mode="replicate")
    in_box = F.pad(torch.ones_like(counts), (r,) * 6)
    back = LocalCorrelation(
        moving[crop], padded, r, valid=in_box, weight=near.float(), memory_budget=scene.memory_budget
    )
    backwards = _settled(_shift(back, grid, shape.temperature), near)
    round_trip = DisplacementField(backwards, grid).after(DisplacementField(forwards, grid)).tensor
    maps["inconsistency_mm"] = _length(round_trip)
    return Evidence(maps, grid), forwards


@dataclass(frozen=True)
class _Shape:
    """Of the costs around the result: maps by name and the softmin's mean shift in mm, zero where nothing counts."""

    maps: dict[str, torch.Tensor]
    shift: torch.Tensor
    temperature: float


def _shape_of_costs(correlation: LocalCorrelation, grid: Grid) -> _Shape:
    """How clearly, and where, the costs have their minimum.

    ``cost``: at the result itself. ``flatness``: minus the logarithm of mean minus least cost. ``rank``: how far up
    between the least and the mean cost the result lies. ``bluntness``: how little costs rise one step from the result.
    ``rival``: how near the best match elsewhere comes to the best. ``entropy`` and ``spread_mm`` of the softmin.
    """
    steps = correlation.displacements()
    step_mm = torch.as_tensor(grid.spacing, dtype=torch.float32, device=steps.device)
    middle = correlation.count // 2
    beside = (steps.abs().sum(1) == 1).nonzero()[:, 0]
    apart = (steps[:, None] - steps[None]).abs().amax(2) > _APART
    names = ("cost", "flatness", "rank", "bluntness", "rival", "entropy", "spread_mm")
    size = int(np.prod(correlation.shape))
    found = torch.zeros(len(names), size, device=steps.device)
    shift = torch.zeros(3, size, device=steps.device)
    temperature = _temperature(correlation)
    for _, voxels, raw in correlation:
        costs, known = raw.float(), raw < FORBIDDEN / 2
        least, best = costs.min(1)
        mean = (costs * known).sum(1) / known.sum(1).clamp(min=1)
        contrast = (mean - least).clamp(min=1e-6)
        weight = torch.softmax(-costs / temperature, 1)
        center = weight @ (steps * step_mm)
        second = (weight @ (steps * step_mm).square().sum(1)) - center.square().sum(1)
        here = costs[:, middle]
        rise = torch.where(known[:, beside], costs[:, beside], mean[:, None]).mean(1) - here
        elsewhere = costs.masked_fill(~apart[best], FORBIDDEN).amin(1)
        found[:, voxels] = torch.stack(
            [
                here,
                -contrast.log(),
                ((here - least) / contrast).clamp(0, 2),
                1 - (rise / contrast).clamp(-1, 1),
                1 - ((elsewhere - least) / contrast).clamp(0, 1),
                -(weight * weight.clamp(min=1e-12).log()).sum(1) / np.log(correlation.count),
                second.clamp(min=0).sqrt(),
            ]
        )
        shift[:, voxels] = center.T
    shaped = {name: row.view(1, 1, *correlation.shape) for name, row in zip(names, found, strict=True)}
    return _Shape(shaped, shift.view(1, 3, *correlation.shape), temperature)


def _temperature(correlation: LocalCorrelation) -> float:
    """A share of the pair's median contrast, so that any descriptor and modality is judged alike."""
    contrasts = []
    for number, (_, _, raw) in enumerate(correlation):
        if number % _SKIPPED:
            continue
        costs, known = raw.float(), raw < FORBIDDEN / 2
        mean = (costs * known).sum(1) / known.sum(1).clamp(min=1)
        contrasts.append(mean - costs.amin(1))
    typical = float(torch.cat(contrasts).median()) if contrasts else 1.0
    return max(_TEMPERATURE * typical, 1e-6)


def _shift(correlation: LocalCorrelation, grid: Grid, temperature: float) -> torch.Tensor:
    """(1, 3, D, H, W) the softmin's mean shift, mm; zero where nothing counts."""
    steps = correlation.displacements()
    candidates = steps * torch.as_tensor(grid.spacing, dtype=torch.float32, device=steps.device)
    shift = torch.zeros(3, int(np.prod(correlation.shape)), device=steps.device)
    for _, voxels, raw in correlation:
        shift[:, voxels] = (torch.softmax(-raw.float() / temperature, 1) @ candidates).T
    return shift.view(1, 3, *correlation.shape)


def _settled(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Smoothed a little, over what is known alone, and continued beyond."""
    share = smooth(known.float(), 1)
    return continued(smooth(values * known, 1) / share.clamp(min=1e-6), known)


def _of_the_map(deformation: DisplacementField | None, grid: Grid, device: torch.device) -> dict[str, torch.Tensor]:
    """How much the deformation moves, shears and stretches."""
    if deformation is None:
        nothing = torch.zeros(1, 1, *grid.shape, device=device)
        return {"displacement_mm": nothing, "gradient": nothing, "volume_change": nothing}
    u = deformation.on_grid(grid, fill=None)
    slopes = [
        part.square().sum(0)
        for part in (
            torch.gradient(u.tensor[0], spacing=s, dim=d)[0] for s, d in zip(grid.spacing, (3, 2, 1), strict=True)
        )
    ]
    ratio = u.jacobian_determinant().clamp(min=1e-2)
    return {
        "displacement_mm": _length(u.tensor),
        "gradient": sum(slopes[1:], slopes[0]).sqrt()[None, None],
        "volume_change": ratio.log().abs(),
    }


def _length(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.norm(dim=1, keepdim=True)


def _on(tensor: torch.Tensor, grid: Grid, target: Grid) -> torch.Tensor:
    """``tensor`` on another grid, its edge values continued."""
    if grid == target:
        return tensor
    points = target.voxel_centers(reference=target.center, device=tensor.device)
    return sample(tensor, grid, points, reference=target.center)


def _distance_to(mask: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(1, 1, D, H, W) mm to the next voxel of a bool mask; the grid's extent where there is none."""
    if not bool(mask.any()):
        return torch.full(mask.shape, float(grid.extent.max()))
    image = grid.apply_to_sitk(sitk.GetImageFromArray(mask[0, 0].cpu().numpy().astype(np.uint8)))
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return torch.from_numpy(sitk.GetArrayFromImage(distance)).clamp(min=0)[None, None].float()
