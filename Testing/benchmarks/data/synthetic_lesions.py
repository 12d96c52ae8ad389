"""Invented lesions in real CTs, and follow-ups whose truth is exact: a known warp and a fate for every lesion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
import torch
from samconvex.anatomy.body import body_mask
from samconvex.lesions.measurement import Measurement, centroid, measure_lesion
from samconvex.space.grid import Grid
from samconvex.space.sampling import sample, slabs
from samconvex.space.volume import Volume
from samconvex.synthetic.warps import SmoothWarp

from .later_images import CUT, PLAIN, Condition, another_phase, averaged_slices, later_grid, posture, through_kernel

PRESENT = ("grown", "shrunk", "unchanged", "merged", "split")
FATES = ("grown", "shrunk", "unchanged", "removed")
# What happens to two neighbors that look alike.
PAIR_FATES = (("merged", "merged"), ("removed", "unchanged"), ("unchanged", "unchanged"), ("shrunk", "grown"))
GAP_MM = 12.0
SPLIT_FROM_MM = 15.0
NECROSIS_FROM_MM = 14.0


@dataclass(frozen=True)
class SyntheticLesion:
    """An irregular ellipsoid with a blurred border. Frame: LPS mm of the baseline.

    Attributes:
        center: (3,). radii: (3,) mm. axes: (3, 3) rows are the ellipsoid's axes.
        lumps: (K, 4) direction and relative height of bumps on the surface.
        hounsfield: inside. blur_mm: half width of the border. core: share of the radii that is necrotic.
        partner: number of the neighbor that looks like it, or None.
    """

    center: np.ndarray
    radii: np.ndarray
    axes: np.ndarray
    lumps: np.ndarray
    hounsfield: float
    blur_mm: float = 0.7
    core: float = 0.0
    partner: int | None = None

    def distance(self, points: torch.Tensor, growth: np.ndarray) -> torch.Tensor:
        """(...) mm, negative inside, at (..., 3) points relative to the center; radii times ``growth`` (3,)."""
        own = points @ torch.as_tensor(self.axes.T, dtype=points.dtype)
        radii = torch.as_tensor(self.radii * growth, dtype=points.dtype)
        scaled = own / radii
        length = scaled.norm(dim=-1).clamp(min=1e-6)
        direction = scaled / length[..., None]
        surface = torch.ones_like(length)
        for *lump, height in self.lumps:
            along = direction @ torch.as_tensor(lump, dtype=points.dtype)
            surface += height * torch.exp(4.0 * (along - 1))
        return (length - surface) * float(np.prod(radii.numpy()) ** (1 / 3))

    @property
    def reach_mm(self) -> float:
        return float(self.radii.max()) * (1 + float(self.lumps[:, 3].clip(0).sum())) + 4 * self.blur_mm


@dataclass(frozen=True)
class FollowUp:
    """A later image and, per lesion, its fate, place and size in it.

    Attributes:
        centers: (N, 3) LPS mm of the follow-up. masks, measurements: of the lesions that are there, else None.
        boxes: per lesion (2, 3) corners around it (all of its parts).
        necrotic: per lesion, whether it has a dark core now.
        view: per lesion "inside" or "outside" the image, or "cut" by its border.
    """

    image: Volume
    fates: list[str]
    centers: np.ndarray
    boxes: list[np.ndarray]
    measurements: list[Measurement | None]
    view: list[str]
    necrotic: list[bool]


def place_lesions(image: Volume, count: int, random: np.random.Generator, *, large: int = 0) -> list[SyntheticLesion]:
    """Lesions of 6 to 30 mm (larger than two voxels) in lung and soft tissue, apart from skin, bone and one another.

    Args:
        large: so many of them, the first, have 20 mm and more.
    """
    body = body_mask(image)
    eroded = sitk.BinaryErode(sitk.GetImageFromArray(body.tensor[0, 0].numpy()), (3, 3, 2))
    places = body.grid.voxels_to_points(np.argwhere(sitk.GetArrayFromImage(eroded) > 0)[:, ::-1])
    corners = image.grid.corners()
    inner = ((places > corners.min(0) + 20) & (places < corners.max(0) - 20)).all(1)
    places = random.permutation(places[inner])
    voxel = max(image.grid.spacing)
    lesions: list[SyntheticLesion] = []
    for place in places:
        if len(lesions) == count:
            break
        least = 20.0 if len(lesions) < large else max(6.0, 2.2 * voxel)
        diameter = float(np.exp(random.uniform(np.log(least), np.log(30.0))))
        radii = diameter / 2 * random.uniform(0.75, 1.0, 3)
        near = _values_within(image, place, radii.max() + 2)
        middle = float(np.median(near))
        if near.max() > 280 or any(
            np.linalg.norm(place - other.center) < GAP_MM + radii.max() + other.radii.max() for other in lesions
        ):
            continue
        if -960 < middle < -600:
            hounsfield = random.uniform(-20, 70)
        elif -130 < middle < -20:
            hounsfield = middle + random.uniform(90, 140)
        elif -20 <= middle < 150:
            hounsfield = middle + random.choice([-1, 1]) * random.uniform(45, 80)
        else:
            continue
        axes, _ = np.linalg.qr(random.normal(size=(3, 3)))
        directions = random.normal(size=(4, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lumps = np.column_stack([directions, random.uniform(-0.15, 0.3, 4)])
        lesions.append(SyntheticLesion(place, radii, axes, lumps, float(hounsfield), random.uniform(0.5, 1.2)))
    return lesions


def _values_within(image: Volume, place: np.ndarray, radius: float) -> np.ndarray:
    steps = np.linspace(-radius, radius, 7)
    offsets = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    voxels = np.round(image.grid.points_to_voxels(place + offsets)).astype(int)
    voxels = np.clip(voxels, 0, np.asarray(image.grid.size) - 1)
    return image.tensor[0, 0].numpy()[tuple(voxels.T[::-1])].astype(float)


def insert(image: Volume, lesions: list[SyntheticLesion], random: np.random.Generator) -> Volume:
    """The baseline: ``image`` with all lesions in it."""
    values = image.tensor.float().clone()
    for lesion in lesions:
        _draw(values, image.grid, lesion, np.ones(3), None, random)
    return image.with_tensor(values.round().to(image.tensor.dtype))


def lesion_mask(image: Grid, lesion: SyntheticLesion) -> Volume:
    """The drawn segment on the image's own grid, as a reader would paint it."""
    grid, _ = _window(image, lesion.center, lesion.reach_mm)
    points = grid.voxel_centers(reference=lesion.center)
    inside = lesion.distance(points, np.ones(3)) <= 0
    return Volume(inside.to(torch.uint8)[None, None], grid, sitk.sitkUInt8)


def place_pairs(
    image: Volume, lesions: list[SyntheticLesion], count: int, random: np.random.Generator
) -> list[SyntheticLesion]:
    """The lesions with up to ``count`` of them given a neighbor alike, 5 to 8 mm apart in the slice."""
    result = list(lesions)
    for row in random.permutation(len(lesions)):
        if len(result) - len(lesions) == count:
            break
        lesion = result[row]
        if lesion.radii.max() > 11:
            continue
        for angle in random.uniform(0, 2 * np.pi, 12):
            distance = 2 * lesion.reach_mm - 8 * lesion.blur_mm + random.uniform(5, 8)
            center = lesion.center + distance * np.array([np.cos(angle), np.sin(angle), 0.0])
            values = _values_within(image, center, lesion.radii.max() + 2)
            middle = float(np.median(_values_within(image, lesion.center, lesion.radii.max() + 2)))
            apart = all(
                np.linalg.norm(center - other.center) > GAP_MM + lesion.radii.max() + other.radii.max()
                for number, other in enumerate(result)
                if number != row
            )
            inside = image.grid.padded(-6).contains(center[None])[0]
            if apart and inside and values.max() < 280 and abs(float(np.median(values)) - middle) < 40:
                twin = replace(lesion, center=center, axes=lesion.axes[::-1].copy(), partner=int(row))
                result[row] = replace(lesion, partner=len(result))
                result.append(twin)
                break
    return result


def make_follow_up(
    image: Volume,
    lesions: list[SyntheticLesion],
    random: np.random.Generator,
    *,
    cut: bool = False,
    condition: Condition | None = None,
) -> FollowUp:
    """The patient later: other posture, spacing, noise and brightness; every lesion grown, shrunk, unchanged or gone.

    Args:
        cut: shows only part of the body: a random share of the image along the body is missing.
        condition: what else differs; with one, lesions also split, merge with their neighbor and become necrotic.
    """
    hard = condition is not None
    condition = condition or (CUT if cut else PLAIN)
    back = posture(image.grid, random, condition)
    grid, parts = later_grid(image.grid, random, condition)
    values = _seen_through(image, back, grid)
    if condition.phase:
        values = another_phase(values, grid, random)
    voxel = max(grid.spacing[0], grid.spacing[2] * parts)
    fates = _fates(lesions, random, hard, voxel)
    shapes = [_shapes(lesions, row, fate, voxel, random) for row, fate in enumerate(fates)]
    necrotic = []
    for row, fate in enumerate(fates):
        dead = hard and fate in ("grown", "unchanged") and _can_die(lesions[row]) and random.uniform() < 0.4
        necrotic.append(dead)
        if dead:
            shapes[row] = [(replace(shape, core=random.uniform(0.5, 0.65)), growth) for shape, growth in shapes[row]]
    for row in range(len(lesions)):
        for shape, growth in shapes[row] if fates[row] != "removed" else ():
            _draw(values, grid, shape, growth, back, random, vary=condition.phase)
    values, seen_grid = averaged_slices(values, grid, parts)
    centers, boxes, measurements, view = [], [], [], []
    for row, (lesion, fate) in enumerate(zip(lesions, fates, strict=True)):
        truth = _truth(shapes[row], back)
        corners = truth.grid.voxels_to_points((truth.tensor[0, 0] > 0).nonzero().flip(1).numpy())
        boxes.append(np.stack([corners.min(0) - 0.5, corners.max(0) + 0.5]))
        seen = seen_grid.contains(corners)
        beyond = ~seen_grid.padded(max(1, int(round(5.0 / min(seen_grid.spacing))))).contains(corners)
        view.append("inside" if seen.all() else "outside" if beyond.all() else "cut")
        measurements.append(measure_lesion(truth, seen_grid) if fate in ("grown", "shrunk", "unchanged") else None)
        centers.append(back.unmap_points(lesion.center[None])[0] if fate == "removed" else boxes[-1].mean(0))
    air = values <= image.background + 1
    values = values * random.uniform(0.94, 1.06) + random.uniform(-12, 12)
    values = through_kernel(values, condition.kernel, random).clamp(min=-1024)
    values[air] = image.background
    later = replace(
        image, tensor=values.round().to(image.tensor.dtype), grid=seen_grid, source=f"{image.name}, {condition.name}"
    )
    return FollowUp(later, fates, np.stack(centers), boxes, measurements, view, necrotic)


def _seen_through(image: Volume, back: SmoothWarp, grid: Grid) -> torch.Tensor:
    """(1, 1, D, H, W) float: the image as the later posture shows it on ``grid``."""
    values = torch.empty(1, 1, *grid.shape)
    source = image.tensor.float()
    for z0, z1 in slabs(grid, 400_000):
        points = grid.voxel_centers(z0, z1, reference=grid.center)
        values[:, :, z0:z1] = sample(
            source, image.grid, _mapped(back, points, grid.center), reference=grid.center, fill=image.background
        )
    return values


def _fates(lesions: list[SyntheticLesion], random: np.random.Generator, hard: bool, voxel: float) -> list[str]:
    """One per lesion; with ``hard`` those large enough may split, and neighbors have theirs together.

    None shrinks to less than one and a half voxels.
    """
    fates = [str(fate) for fate in random.permutation(np.resize(FATES, len(lesions)))]
    if not hard:
        return fates
    for row, lesion in enumerate(lesions):
        if lesion.partner is None and 2 * lesion.radii.min() > SPLIT_FROM_MM and random.uniform() < 0.5:
            fates[row] = "split"
        if lesion.partner is not None and lesion.partner > row:
            fate = PAIR_FATES[int(random.choice(len(PAIR_FATES), p=(0.4, 0.2, 0.2, 0.2)))]
            fates[row], fates[lesion.partner] = fate if random.uniform() < 0.5 else fate[::-1]
    for row, lesion in enumerate(lesions):
        if fates[row] == "shrunk" and 0.75 * 2 * float(lesion.radii.min()) < 1.5 * voxel:
            fates[row] = "unchanged"
    return fates


def _can_die(lesion: SyntheticLesion) -> bool:
    return lesion.partner is None and lesion.hounsfield > 45 and 2 * lesion.radii.min() > NECROSIS_FROM_MM


def _shapes(
    lesions: list[SyntheticLesion], row: int, fate: str, voxel: float, random: np.random.Generator
) -> list[tuple[SyntheticLesion, np.ndarray]]:
    """What a lesion has become, in the baseline's frame: its parts, each with factors (3,) on the radii."""
    lesion = lesions[row]
    if fate == "merged":
        assert lesion.partner is not None
        return [(lesion, np.full(3, _meeting(lesion, lesions[lesion.partner])))]
    if fate != "split":
        return [(lesion, _growth(lesion, fate, voxel, random))]
    count = int(random.integers(2, 4))
    start = random.uniform(0, 2 * np.pi)
    fragments = []
    for number in range(count):
        angle = start + 2 * np.pi * number / count
        away = (0.56 + 0.06 * count) * lesion.radii.min()
        direction = np.array([np.cos(angle), np.sin(angle), random.uniform(-0.2, 0.2)])
        smaller = lesion.radii.min() * random.uniform(0.32, 0.42) * np.ones(3)
        fragments.append((replace(lesion, center=lesion.center + away * direction, radii=smaller), np.ones(3)))
    return fragments


def _meeting(lesion: SyntheticLesion, other: SyntheticLesion) -> float:
    """Factor on the radii of both from which they overlap by two millimeters."""
    steps = torch.as_tensor(lesion.center + np.linspace(0, 1, 101)[:, None] * (other.center - lesion.center))
    for factor in np.arange(1.2, 3.0, 0.05):
        growth = np.full(3, factor)
        both = [shape.distance(steps - torch.as_tensor(shape.center), growth) for shape in (lesion, other)]
        if float(torch.maximum(both[0], both[1]).min()) < -1.0:
            return float(factor)
    return 3.0


def _growth(lesion: SyntheticLesion, fate: str, voxel: float, random: np.random.Generator) -> np.ndarray:
    """(3,) factors on the radii, each axis somewhat different; what has shrunk still spans more than a voxel."""
    factor = {"grown": random.uniform(1.25, 1.7), "shrunk": random.uniform(0.5, 0.75)}.get(fate, 1.0)
    if fate not in ("grown", "shrunk"):
        return np.ones(3)
    if fate == "shrunk":
        factor = max(factor, 1.5 * voxel / (2 * float(lesion.radii.min())))
    return factor * random.uniform(0.93, 1.07, 3)


def _truth(shapes: list[tuple[SyntheticLesion, np.ndarray]], back: SmoothWarp) -> Volume:
    """The exact mask of a lesion's parts in the follow-up."""
    places = back.unmap_points(np.stack([shape.center for shape, _ in shapes]))
    reach = max(shape.reach_mm * float(growth.max()) * 1.3 for shape, growth in shapes)
    grid = Grid.covering(places, float(np.clip(reach / 40, 0.4, 1.0)), margin_mm=reach)
    points = _mapped(back, grid.voxel_centers(reference=grid.center), grid.center)
    inside = torch.zeros(points.shape[:-1], dtype=torch.bool)
    for shape, growth in shapes:
        inside |= shape.distance(points + torch.as_tensor(grid.center - shape.center, dtype=points.dtype), growth) <= 0
    mask = Volume(inside.to(torch.uint8)[None, None], grid, sitk.sitkUInt8)
    assert np.linalg.norm(centroid(mask) - places.mean(0)) < reach
    return mask


def _draw(
    values: torch.Tensor,
    image: Grid,
    lesion: SyntheticLesion,
    growth: np.ndarray,
    back: SmoothWarp | None,
    random: np.random.Generator,
    *,
    vary: bool = False,
) -> None:
    """Blend a lesion into (1, 1, D, H, W) ``values``; what lies beneath keeps a third of its texture.

    Args:
        vary: another contrast phase: the lesion stands out more or less than it did, by up to 40 %, from what is there.
    """
    center = lesion.center if back is None else back.unmap_points(lesion.center[None])[0]
    grid, part = _window(image, center, lesion.reach_mm * float(growth.max()) * 1.3)
    if min(grid.size) < 1:
        return
    points = grid.voxel_centers(reference=center)
    if back is not None:
        points = _mapped(back, points, center) + torch.as_tensor(center - lesion.center, dtype=points.dtype)
    distance = lesion.distance(points, growth)
    # Voxels average over their extent.
    blur = max(lesion.blur_mm, 0.3 * max(image.spacing))
    share = torch.sigmoid(-2.0 * distance / blur)
    region = values[0, 0][part]
    inside = region[distance <= 0]
    middle = inside.median() if len(inside) else region.median()
    texture = (0.33 * (region - middle)).clamp(-25, 25)
    texture += torch.as_tensor(random.normal(scale=6.0, size=tuple(region.shape)), dtype=torch.float32)
    level = torch.full_like(region, lesion.hounsfield)
    if vary and abs(float(middle)) < 160:
        contrast = float(np.clip(lesion.hounsfield - float(middle), -90, 90)) * random.uniform(0.6, 1.4)
        level[:] = float(middle) + np.sign(contrast) * max(abs(contrast), 30.0)
    if lesion.core:
        dead = torch.sigmoid(-2.0 * lesion.distance(points, growth * lesion.core) / blur)
        level = level * (1 - dead) + 12.0 * dead
    values[0, 0][part] = region * (1 - share) + (level + texture) * share


def _window(image: Grid, center: np.ndarray, reach: float) -> tuple[Grid, tuple[slice, slice, slice]]:
    offsets = np.array([[(-1, 1)[c >> a & 1] for a in range(3)] for c in range(8)]) * reach
    voxels = image.points_to_voxels(center + offsets)
    lower = np.clip(np.floor(voxels.min(0)), 0, image.size).astype(int)
    upper = np.clip(np.ceil(voxels.max(0)) + 1, lower, image.size).astype(int)
    part = tuple(slice(int(a), int(b)) for a, b in zip(lower[::-1], upper[::-1], strict=True))
    return image.cropped(lower.tolist(), (upper - lower).tolist()), part  # type: ignore[return-value]


def _mapped(warp: SmoothWarp, points: torch.Tensor, reference: np.ndarray) -> torch.Tensor:
    """T(p) relative to ``reference`` at (..., 3) points relative to it."""
    moved = points + warp.bumps(points, reference)
    assert warp.affine is not None
    shift = warp.affine.map_points(reference[None])[0] - reference
    return moved @ torch.as_tensor(warp.affine.matrix.T.copy(), dtype=points.dtype) + torch.as_tensor(
        shift, dtype=points.dtype
    )
