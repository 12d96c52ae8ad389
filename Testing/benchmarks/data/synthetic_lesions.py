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

from .drawn_lesions import SyntheticLesion, draw, mapped, stands_out, window
from .later_images import CUT, PLAIN, Condition, another_phase, averaged_slices, later_grid, posture, through_kernel

PRESENT = ("grown", "shrunk", "unchanged", "merged", "split")
FATES = ("grown", "shrunk", "unchanged", "removed")
# What happens to two neighbors that look alike.
PAIR_FATES = (("merged", "merged"), ("removed", "unchanged"), ("unchanged", "unchanged"), ("shrunk", "grown"))
GAP_MM = 12.0
SPLIT_FROM_MM = 15.0
# Radii of fragments in radii of the lesion. Nothing that a thicker slice than one and a half would hide is drawn.
FRAGMENT = (0.32, 0.42)
LEAST_VOXELS = 1.5
# How often another place of the parts is tried.
LAYOUTS = 8
NECROSIS_FROM_MM = 14.0


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


def place_lesions(
    image: Volume, count: int, random: np.random.Generator, *, large: int = 0, seen: bool = False
) -> list[SyntheticLesion]:
    """Lesions of 6 to 30 mm (larger than two voxels) in lung and soft tissue, apart from skin, bone and one another.

    Args:
        large: so many of them, the first, have 20 mm and more. seen: only where at least half of the border is seen.
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
        lesion = SyntheticLesion(place, radii, axes, lumps, float(hounsfield), random.uniform(0.5, 1.2))
        if not seen or _seen_in(image, lesion):
            lesions.append(lesion)
    return lesions


def _seen_in(image: Volume, lesion: SyntheticLesion) -> bool:
    return stands_out(image.tensor.float(), image.grid, lesion, np.ones(3), level=lesion.hounsfield)


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
        draw(values, image.grid, lesion, np.ones(3), None, random)
    return image.with_tensor(values.round().to(image.tensor.dtype))


def lesion_mask(image: Grid, lesion: SyntheticLesion) -> Volume:
    """The drawn segment on the image's own grid, as a reader would paint it."""
    grid, _ = window(image, lesion.center, lesion.reach_mm)
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
                if not _seen_in(image, twin):
                    continue
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
        if hard and fates[row] in ("split", "shrunk"):
            seen = _draw_seen(values, grid, lesions, row, fates[row], back, voxel, random, condition)
            if seen is not None:
                shapes[row] = seen
                continue
            # A change that nobody sees has not happened.
            fates[row], shapes[row] = "unchanged", _shapes(lesions, row, "unchanged", voxel, random)
        for shape, growth in shapes[row] if fates[row] != "removed" else ():
            draw(values, grid, shape, growth, back, random, vary=condition.phase)
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
            source, image.grid, mapped(back, points, grid.center), reference=grid.center, fill=image.background
        )
    return values


def _fates(lesions: list[SyntheticLesion], random: np.random.Generator, hard: bool, voxel: float) -> list[str]:
    """One per lesion; with ``hard`` those large enough may split, and neighbors have theirs together.

    None shrinks or splits to less than LEAST_VOXELS.
    """
    fates = [str(fate) for fate in random.permutation(np.resize(FATES, len(lesions)))]
    if not hard:
        return fates
    for row, lesion in enumerate(lesions):
        narrow = 2 * float(lesion.radii.min())
        large = narrow > SPLIT_FROM_MM and FRAGMENT[1] * narrow >= LEAST_VOXELS * voxel
        if lesion.partner is None and large and random.uniform() < 0.5:
            fates[row] = "split"
        if lesion.partner is not None and lesion.partner > row:
            fate = PAIR_FATES[int(random.choice(len(PAIR_FATES), p=(0.4, 0.2, 0.2, 0.2)))]
            fates[row], fates[lesion.partner] = fate if random.uniform() < 0.5 else fate[::-1]
    for row, lesion in enumerate(lesions):
        if fates[row] == "shrunk" and 0.75 * 2 * float(lesion.radii.min()) < LEAST_VOXELS * voxel:
            fates[row] = "unchanged"
    return fates


def _draw_seen(
    values: torch.Tensor,
    grid: Grid,
    lesions: list[SyntheticLesion],
    row: int,
    fate: str,
    back: SmoothWarp,
    voxel: float,
    random: np.random.Generator,
    condition: Condition,
) -> list[tuple[SyntheticLesion, np.ndarray]] | None:
    """The parts that a fate leaves, drawn where each can be seen; None, and nothing drawn, where they cannot."""
    center = back.unmap_points(lesions[row].center[None])[0]
    around, part = window(grid, center, 2.5 * lesions[row].reach_mm)
    if min(around.size) < 1:
        return _shapes(lesions, row, fate, voxel, random)
    for _ in range(LAYOUTS):
        shapes = _shapes(lesions, row, fate, voxel, random)
        drawn = values[0, 0][part][None, None].clone()
        for shape, growth in shapes:
            draw(drawn, around, shape, growth, back, random, vary=condition.phase)
        if all(stands_out(drawn, around, shape, growth, back) for shape, growth in shapes):
            values[0, 0][part] = drawn[0, 0]
            return shapes
    return None


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
        least = max(FRAGMENT[0], LEAST_VOXELS * voxel / (2 * float(lesion.radii.min())))
        smaller = lesion.radii.min() * random.uniform(min(least, FRAGMENT[1]), FRAGMENT[1]) * np.ones(3)
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
        factor = max(factor, LEAST_VOXELS * voxel / (2 * float(lesion.radii.min())))
    return factor * random.uniform(0.93, 1.07, 3)


def _truth(shapes: list[tuple[SyntheticLesion, np.ndarray]], back: SmoothWarp) -> Volume:
    """The exact mask of a lesion's parts in the follow-up."""
    places = back.unmap_points(np.stack([shape.center for shape, _ in shapes]))
    reach = max(shape.reach_mm * float(growth.max()) * 1.3 for shape, growth in shapes)
    grid = Grid.covering(places, float(np.clip(reach / 40, 0.4, 1.0)), margin_mm=reach)
    points = mapped(back, grid.voxel_centers(reference=grid.center), grid.center)
    inside = torch.zeros(points.shape[:-1], dtype=torch.bool)
    for shape, growth in shapes:
        inside |= shape.distance(points + torch.as_tensor(grid.center - shape.center, dtype=points.dtype), growth) <= 0
    mask = Volume(inside.to(torch.uint8)[None, None], grid, sitk.sitkUInt8)
    assert np.linalg.norm(centroid(mask) - places.mean(0)) < reach
    return mask
