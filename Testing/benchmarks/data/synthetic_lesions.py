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
from samconvex.space.transforms import AffineTransform
from samconvex.space.volume import Volume
from samconvex.synthetic.warps import SmoothWarp

PRESENT = ("grown", "shrunk", "unchanged")
FATES = (*PRESENT, "removed")
GAP_MM = 12.0


@dataclass(frozen=True)
class SyntheticLesion:
    """An irregular ellipsoid with a blurred border. Frame: LPS mm of the baseline.

    Attributes:
        center: (3,). radii: (3,) mm. axes: (3, 3) rows are the ellipsoid's axes.
        lumps: (K, 4) direction and relative height of bumps on the surface.
        hounsfield: inside. blur_mm: half width of the border.
    """

    center: np.ndarray
    radii: np.ndarray
    axes: np.ndarray
    lumps: np.ndarray
    hounsfield: float
    blur_mm: float = 0.7

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
        boxes: per lesion (2, 3) corners around it.
        view: per lesion "inside" or "outside" the image, or "cut" by its border.
    """

    image: Volume
    fates: list[str]
    centers: np.ndarray
    boxes: list[np.ndarray]
    measurements: list[Measurement | None]
    view: list[str]


def place_lesions(image: Volume, count: int, random: np.random.Generator) -> list[SyntheticLesion]:
    """Lesions of 6 to 30 mm (larger than two voxels) in lung and soft tissue, apart from skin, bone and one another."""
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
        diameter = float(np.exp(random.uniform(np.log(max(6.0, 2.2 * voxel)), np.log(30.0))))
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


def make_follow_up(
    image: Volume, lesions: list[SyntheticLesion], random: np.random.Generator, *, cut: bool = False
) -> FollowUp:
    """The patient later: other posture, spacing, noise and brightness; every lesion grown, shrunk, unchanged or gone.

    Args:
        cut: shows only part of the body: a random share of the image along the body is missing.
    """
    back = _posture(image, random)
    grid = _later_grid(image.grid, random, cut)
    values = torch.empty(1, 1, *grid.shape)
    source = image.tensor.float()
    for z0, z1 in slabs(grid, 400_000):
        points = grid.voxel_centers(z0, z1, reference=grid.center)
        values[:, :, z0:z1] = sample(
            source, image.grid, _mapped(back, points, grid.center), reference=grid.center, fill=image.background
        )
    fates = [str(fate) for fate in random.permutation(np.resize(FATES, len(lesions)))]
    centers = back.unmap_points(np.stack([lesion.center for lesion in lesions]))
    boxes, measurements, view = [], [], []
    for lesion, fate, center in zip(lesions, fates, centers, strict=True):
        growth = _growth(lesion, fate, max(grid.spacing), random)
        truth = _truth(lesion, growth, back, center)
        corners = truth.grid.voxels_to_points((truth.tensor[0, 0] > 0).nonzero().flip(1).numpy())
        boxes.append(np.stack([corners.min(0) - 0.5, corners.max(0) + 0.5]))
        seen = grid.contains(corners)
        beyond = ~grid.padded(max(1, int(round(5.0 / min(grid.spacing))))).contains(corners)
        view.append("inside" if seen.all() else "outside" if beyond.all() else "cut")
        measurements.append(measure_lesion(truth, grid) if fate != "removed" else None)
        if fate != "removed":
            _draw(values, grid, lesion, growth, back, random)
    centers = np.stack([box.mean(0) for box in boxes])
    for row, (lesion, fate) in enumerate(zip(lesions, fates, strict=True)):
        if fate == "removed":
            centers[row] = back.unmap_points(lesion.center[None])[0]
    gain, offset = random.uniform(0.94, 1.06), random.uniform(-12, 12)
    air = values <= image.background + 1
    values = (
        values * gain
        + offset
        + random.uniform(8, 20) * torch.as_tensor(random.normal(size=values.shape), dtype=torch.float32)
    ).clamp(min=-1024)
    values[air] = image.background
    later = replace(image, tensor=values.round().to(image.tensor.dtype), grid=grid, source=f"{image.name}, later")
    return FollowUp(later, fates, centers, boxes, measurements, view)


def _growth(lesion: SyntheticLesion, fate: str, voxel: float, random: np.random.Generator) -> np.ndarray:
    """(3,) factors on the radii, each axis somewhat different; what has shrunk still spans more than a voxel."""
    factor = {"grown": random.uniform(1.25, 1.7), "shrunk": random.uniform(0.5, 0.75)}.get(fate, 1.0)
    if fate not in ("grown", "shrunk"):
        return np.ones(3)
    factor = max(factor, 1.5 * voxel / (2 * float(lesion.radii.min()))) if fate == "shrunk" else factor
    return factor * random.uniform(0.93, 1.07, 3)


def _truth(lesion: SyntheticLesion, growth: np.ndarray, back: SmoothWarp, center: np.ndarray) -> Volume:
    reach = lesion.reach_mm * float(growth.max()) * 1.3
    grid = Grid.covering(center[None], float(np.clip(reach / 40, 0.4, 1.0)), margin_mm=reach)
    points = _mapped(back, grid.voxel_centers(reference=grid.center), grid.center)
    inside = lesion.distance(points + torch.as_tensor(grid.center - lesion.center, dtype=points.dtype), growth) <= 0
    mask = Volume(inside.to(torch.uint8)[None, None], grid, sitk.sitkUInt8)
    assert np.linalg.norm(centroid(mask) - center) < reach
    return mask


def _draw(
    values: torch.Tensor,
    image: Grid,
    lesion: SyntheticLesion,
    growth: np.ndarray,
    back: SmoothWarp | None,
    random: np.random.Generator,
) -> None:
    """Blend a lesion into (1, 1, D, H, W) ``values``; what lies beneath keeps a third of its texture."""
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
    values[0, 0][part] = region * (1 - share) + (lesion.hounsfield + texture) * share


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


def _posture(image: Volume, random: np.random.Generator) -> SmoothWarp:
    """Map of follow-up to baseline points: a turn, a shift, and smooth bumps of up to about a centimeter."""
    low, high = image.grid.corners().min(0), image.grid.corners().max(0)
    count = 8
    directions = random.normal(size=(count, 3))
    directions *= random.uniform(4, 12, (count, 1)) / np.linalg.norm(directions, axis=1, keepdims=True)
    widths = np.repeat(random.uniform(40, 80, (count, 1)), 3, 1)
    x, y, z = np.radians(random.uniform(-5, 5, 3))
    turn = np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]])
    left, _, right = np.linalg.svd(turn)
    change = AffineTransform.about((low + high) / 2, left @ right, random.uniform(-12, 12, 3))
    return SmoothWarp.within_slope(random.uniform(low, high, (count, 3)), widths, directions, change)


def _later_grid(grid: Grid, random: np.random.Generator, cut: bool) -> Grid:
    """Another spacing over the same extent, of which ``cut`` removes 35 to 60 % along the body from one end."""
    spacing = np.asarray(grid.spacing) * random.uniform(0.9, 1.25, 3)
    spacing[2] *= random.choice([1.0, 1.5]) if spacing[2] < 3 else 1.0
    later = grid.with_spacing(spacing.tolist())
    if not cut:
        return later
    keep = max(16, int(round(later.size[2] * random.uniform(0.4, 0.65))))
    first = random.choice([0, later.size[2] - keep])
    return later.cropped((0, 0, int(first)), (later.size[0], later.size[1], keep))
